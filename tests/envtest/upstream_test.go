package envtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	apiv0 "github.com/modelcontextprotocol/registry/pkg/api/v0"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stacklok/toolhive-catalog/pkg/catalog/toolhive"
	"gopkg.in/yaml.v3"
)

// The test expects the examples and ToolHive's catalogue to be served by the built binary.
func TestMain(m *testing.M) {
	if os.Getenv("WAYMARK_BIN") == "" {
		fmt.Fprintln(os.Stderr, "WAYMARK_BIN is not set; run these tests by `cargo xtask test`")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// upstream is the folder of the upstream registry's sources in the module cache.
func upstream(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/modelcontextprotocol/registry").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func readJSON(t *testing.T, path string) any {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if strings.HasSuffix(path, ".yaml") {
		if err := yaml.Unmarshal(data, &value); err != nil {
			t.Fatal(err)
		}
		// By way of JSON, so that the values have JSON's types.
		if data, err = json.Marshal(value); err != nil {
			t.Fatal(err)
		}
	}
	value, err = jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func compile(t *testing.T, name string, document any, pointer string) *jsonschema.Schema {
	t.Helper()
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.AssertFormat()
	if err := compiler.AddResource(name, document); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(name + pointer)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// serverSchema is upstream's JSON Schema of server.json.
func serverSchema(t *testing.T) *jsonschema.Schema {
	path := filepath.Join(upstream(t), "internal/validators/schemas/2025-12-11.json")
	document := readJSON(t, path)
	// The schema's own address: it must not be fetched.
	return compile(t, document.(map[string]any)["$id"].(string), document, "")
}

// upstreamSchema is a component of upstream's OpenAPI document.
func upstreamSchema(t *testing.T, component string) *jsonschema.Schema {
	document := readJSON(t, filepath.Join(upstream(t), "docs/reference/api/openapi.yaml"))
	delete(document.(map[string]any), "$id")
	return compile(t, "file:///upstream.json", document, "#/components/schemas/"+component)
}

// ownSchema is a component of the OpenAPI document that Waymark serves.
func ownSchema(t *testing.T, component string) *jsonschema.Schema {
	document := readJSON(t, "../../registry-api/openapi.yaml")
	return compile(t, "file:///own.json", document, "#/components/schemas/"+component)
}

func validate(t *testing.T, what string, schema *jsonschema.Schema, body []byte) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%s: %v\n%.2000s", what, err, body)
	}
}

// equal compares two JSON texts by value.
func equal(t *testing.T, what string, is, should []byte) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal(is, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(should, &b); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%s: %.3000s\nexpected %.3000s", what, is, should)
	}
}

func get(t *testing.T, url string) (int, []byte) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}

// Every page that is served is valid by upstream's OpenAPI and by Waymark's own, every entry by
// upstream's server.schema.json, and upstream's Go types read and write it without loss.
func TestServedPages(t *testing.T) {
	catalogue := filepath.Join(t.TempDir(), "registry.json")
	if err := os.WriteFile(catalogue, toolhive.Upstream(), 0o600); err != nil {
		t.Fatal(err)
	}
	base := serve(t, catalogue)
	list, own, server := upstreamSchema(t, "ServerList"), ownSchema(t, "ServerList"), serverSchema(t)
	one, ownOne := upstreamSchema(t, "ServerResponse"), ownSchema(t, "ServerResponse")
	seen := 0
	cursor := ""
	for {
		status, body := get(t, base+"/v0.1/servers?limit=100&cursor="+url.QueryEscape(cursor))
		if status != 200 {
			t.Fatalf("%d %s", status, body)
		}
		validate(t, "page by upstream's OpenAPI", list, body)
		validate(t, "page by our OpenAPI", own, body)
		var page apiv0.ServerListResponse
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&page); err != nil {
			t.Fatal(err)
		}
		var raw struct{ Servers []struct{ Server, Meta json.RawMessage } }
		if err := json.Unmarshal(body, &raw); err != nil {
			t.Fatal(err)
		}
		for i, entry := range raw.Servers {
			validate(t, page.Servers[i].Server.Name, server, entry.Server)
		}
		for _, entry := range page.Servers {
			seen++
			if entry.Meta.Official == nil || entry.Meta.Official.PublishedAt.IsZero() || !entry.Meta.Official.IsLatest {
				t.Errorf("%s: official record %+v", entry.Server.Name, entry.Meta.Official)
			}
			if seen%20 != 0 {
				continue
			}
			address := base + "/v0.1/servers/" + url.PathEscape(entry.Server.Name) + "/versions/latest"
			status, body := get(t, address)
			if status != 200 {
				t.Fatalf("%s: %d", address, status)
			}
			validate(t, address, one, body)
			validate(t, address, ownOne, body)
			var response apiv0.ServerResponse
			if err := json.Unmarshal(body, &response); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(response)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, address+" by upstream's Go types", again, body)
		}
		if page.Metadata.Count != len(page.Servers) {
			t.Errorf("count %d of %d", page.Metadata.Count, len(page.Servers))
		}
		if cursor = page.Metadata.NextCursor; cursor == "" {
			break
		}
	}
	if seen < 50 {
		t.Errorf("only %d servers were served", seen)
	}
}

// ToolHive's real catalogue comes out as it went in: nothing refused, no field lost.
func TestToolHiveCatalogueRoundTrip(t *testing.T) {
	catalogue := filepath.Join(t.TempDir(), "registry.json")
	if err := os.WriteFile(catalogue, toolhive.Upstream(), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	command := exec.Command(os.Getenv("WAYMARK_BIN"), "plan", "-o", "upstream", "--catalogue", catalogue, empty)
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("plan: %v", err)
	}
	type keyed struct{ Name, Version string }
	var file struct{ Data struct{ Servers []json.RawMessage } }
	if err := json.Unmarshal(toolhive.Upstream(), &file); err != nil {
		t.Fatal(err)
	}
	var listed struct{ Servers []struct{ Server json.RawMessage } }
	if err := json.Unmarshal(out, &listed); err != nil {
		t.Fatal(err)
	}
	served := map[keyed]json.RawMessage{}
	for _, entry := range listed.Servers {
		var key keyed
		if err := json.Unmarshal(entry.Server, &key); err != nil {
			t.Fatal(err)
		}
		served[key] = entry.Server
	}
	if len(file.Data.Servers) < 50 || len(served) != len(file.Data.Servers) {
		t.Fatalf("%d of %d entries are served", len(served), len(file.Data.Servers))
	}
	for _, entry := range file.Data.Servers {
		var key keyed
		if err := json.Unmarshal(entry, &key); err != nil {
			t.Fatal(err)
		}
		equal(t, key.Name, served[key], entry)
	}
}

// What ToolHive's CLI and its registry server ask of a source (probe, paging, OpenAPI).
func TestToolHiveTakesItAsASource(t *testing.T) {
	base := serve(t, "")
	response, err := http.Get(base + "/v0.1/servers?limit=1&version=latest")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if kind := response.Header.Get("Content-Type"); !strings.Contains(kind, "application/json") {
		t.Errorf("content type %s", kind)
	}
	var probe struct {
		Servers  []json.RawMessage
		Metadata map[string]any
	}
	if err := json.NewDecoder(response.Body).Decode(&probe); err != nil || probe.Servers == nil || probe.Metadata == nil {
		t.Errorf("probe %+v: %v", probe, err)
	}
	status, body := get(t, base+"/v0.1/servers?search=no-such-server&version=latest")
	if status != 200 || !strings.Contains(string(body), `"servers":[]`) {
		t.Errorf("an empty list is %d %s", status, body)
	}
	_, document := get(t, base+"/openapi.yaml")
	var openapi struct{ Info struct{ Version, Description string } }
	if err := yaml.Unmarshal(document, &openapi); err != nil {
		t.Fatal(err)
	}
	if openapi.Info.Version != "1.0.0" || !strings.Contains(openapi.Info.Description, "https://github.com/modelcontextprotocol/registry") {
		t.Errorf("info %+v", openapi.Info)
	}
}
