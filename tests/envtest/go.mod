module waymark/envtest

go 1.26.0

require (
	github.com/modelcontextprotocol/registry v1.8.7
	github.com/santhosh-tekuri/jsonschema/v6 v6.0.3
	github.com/stacklok/toolhive-catalog v0.20260908.0
	gopkg.in/yaml.v3 v3.0.1
)

require golang.org/x/text v0.42.0 // indirect
