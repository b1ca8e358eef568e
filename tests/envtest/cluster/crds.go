// Package cluster pins what a test cluster is made of: kube-apiserver, etcd, and the CRDs of
// Gateway API, which are read from the module cache.
package cluster

import _ "sigs.k8s.io/gateway-api/apis/v1"
