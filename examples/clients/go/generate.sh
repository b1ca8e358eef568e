#!/usr/bin/env bash
# Makes registryv1/ from the contracts. PROTOC names the compiler, if it is not protoc.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p bin registryv1
go build -o bin google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
files=(entry catalogue publisher)
options=()
for file in "${files[@]}"; do
  options+=("--go_opt=Mwaymark/registry/v1/$file.proto=waymark/examples/clients/registryv1"
    "--go-grpc_opt=Mwaymark/registry/v1/$file.proto=waymark/examples/clients/registryv1")
done
PATH="$PWD/bin:$PATH" ${PROTOC:-protoc} -I ../../../proto/proto \
  --go_out=. --go_opt=module=waymark/examples/clients \
  --go-grpc_out=. --go-grpc_opt=module=waymark/examples/clients \
  "${options[@]}" $(printf "waymark/registry/v1/%s.proto " "${files[@]}")
