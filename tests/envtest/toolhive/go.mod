module waymark/envtest/toolhive

go 1.26.0

require github.com/stacklok/toolhive v0.48.0
