//go:build tools

// Package clients pins the programs that are built from other modules.
package clients

import _ "helm.sh/helm/v3/cmd/helm"
