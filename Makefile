# Every target sets up what it needs and can be run again at any time.
.PHONY: help cluster cluster-down test tidy images bench etcd-soak

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

cluster: ## Start a cluster on this machine with a sample application (root)
	@cargo xtask cluster-up

cluster-down: ## Stop the cluster and remove all it left
	@cargo xtask cluster-down

test: ## Run every test that belongs on every change (root)
	@tests/run

tidy: ## Check what no compiler checks
	@cargo xtask tidy

images: ## Build the sample's images into target/images
	@cargo xtask images

etcd-soak: ## Two API servers on a failing etcd cluster, for MINUTES (10)
	@cargo xtask packages
	@KEELSON_SOAK_SECONDS=$$(( $${MINUTES:-10} * 60 )) cargo test --package keelson --test etcd -- --nocapture

bench: ## Print the figures of the running cluster beside their floors (root)
	@cargo run --quiet --release --package keelson-bench
