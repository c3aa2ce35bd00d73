# Every target sets up what it needs and can be run again at any time.
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

cluster: ## Start a cluster on this machine with a sample application (root)
	@cargo xtask cluster-up

cluster-down: ## Stop the cluster and remove all it left
	@cargo xtask cluster-down

test: ## Run every test that belongs on every change (root)
	@tests/run

test-containerd2: ## Run the kubelet's container tests on a containerd 2 (root)
	@cargo xtask test-containerd2

tidy: ## Check what no compiler checks
	@cargo xtask tidy

images: ## Build the sample's images into target/images
	@cargo xtask images

etcd-soak: ## Two API servers on a failing etcd cluster, for MINUTES (10)
	@cargo xtask packages
	@KEELSON_SOAK_SECONDS=$$(( $${MINUTES:-10} * 60 )) cargo test --package keelson --test etcd -- --nocapture

bench: ## Print the figures of the running cluster beside their floors (root)
	@cargo run --quiet --release --package keelson-bench

conformance: ## Run Kubernetes' conformance tests on the running cluster; ONLY=text for those named so (root)
	@cargo xtask conformance --only "$(ONLY)"

conformance-negative: ## Run them against a server that does nothing: none may pass
	@cargo run --quiet --package keelson-conformance -- --negative --only "$(ONLY)"

packages: ## Build .deb and .rpm packages and a signed apt repository into target/dist
	@cargo xtask dist

e2e-systemd: ## Install the packages on machines of systemd-nspawn and use them (root)
	@tests/systemd/run
