// Package toolhive pins the CRDs of ToolHive, which are read from the module cache. It is a module
// of its own because its dependencies and those of kube-apiserver do not go together.
package toolhive

import _ "github.com/stacklok/toolhive/pkg/versions"
