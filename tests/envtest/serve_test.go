package envtest

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
	"time"
)

var restLine = regexp.MustCompile(`^REST\s+(http://\S+)/v0\.1/servers`)

// serve runs `waymark dev` on the examples, with a curated catalogue where one is named, and
// returns its base URL once everything is published.
func serve(t *testing.T, catalogue string) string {
	t.Helper()
	args := []string{"dev", "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"}
	if catalogue != "" {
		args = append(args, "--catalogue", catalogue)
	}
	command := exec.Command(os.Getenv("WAYMARK_BIN"), append(args, "../../examples/httproutes")...)
	command.Stderr = os.Stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM)
		if err := command.Wait(); err != nil {
			t.Errorf("waymark ended with %v", err)
		}
	})
	found := make(chan string, 1)
	go func() {
		scanner := bufio.NewScanner(stdout)
		for scanner.Scan() {
			if match := restLine.FindStringSubmatch(scanner.Text()); match != nil {
				found <- match[1]
			}
		}
		close(found)
	}()
	select {
	case base, ok := <-found:
		if !ok {
			t.Fatal("waymark ended before it served")
		}
		return base
	case <-time.After(60 * time.Second):
		t.Fatal("waymark did not serve within a minute")
	}
	return ""
}
