// Package envtest holds the tests that need other projects' real parts: the upstream registry's
// OpenAPI document, JSON Schema and Go types, and ToolHive's real catalogue. They come as Go
// modules pinned by go.mod and go.sum. `cargo xtask test` runs them.
package envtest
