# Every target sets up what it needs and can be run again at any time.
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help: ## Show the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

cluster: ## Start a cluster on this machine with a sample application (root)
	@xtask/bootstrap && cargo xtask cluster-up

cluster-down: ## Stop the cluster and remove all it left
	@xtask/bootstrap && cargo xtask cluster-down

test: ## Run every test that belongs on every change (root)
	@xtask/bootstrap && tests/run

test-containerd2: ## Run the kubelet's container tests on a containerd 2 (root)
	@xtask/bootstrap && cargo xtask test-containerd2

test-cgroup2: ## Run the kubelet's container tests on cgroup v2, with both drivers, in a guest (root)
	@tests/cgroup2

tidy: ## Check what no compiler checks
	@xtask/bootstrap && cargo xtask tidy

images: ## Build the sample's images into target/images
	@xtask/bootstrap && cargo xtask images

etcd-soak: ## Two API servers on a failing etcd cluster, for MINUTES (10)
	@cargo xtask packages
	@KEELSON_SOAK_SECONDS=$$(( $${MINUTES:-10} * 60 )) cargo test --package keelson --test etcd -- --nocapture

fuzz: ## Look for inputs that break a reader, for MINUTES (10) of CPU time per target; ONLY=target for one
	@xtask/bootstrap && fuzz/run "$(ONLY)"

bench: ## Print the figures of the running cluster beside their floors (root)
	@xtask/bootstrap && cargo run --quiet --release --package keelson-bench

bench-scale: ## The same with 100,000 mixed objects: memory, idling, and cost per request against 1,000 (root)
	@xtask/bootstrap && cargo run --quiet --release --package keelson-bench -- --only scale --report target/reports/bench-scale.tsv

bench-fleet: ## What NODES (5000) simulated nodes cost the running cluster: leases, statuses, scheduling (root)
	@xtask/bootstrap && cargo run --quiet --release --package keelson-bench -- --only fleet --nodes $(or $(NODES),5000) --report target/reports/bench-fleet.tsv

conformance: ## Run Kubernetes' conformance tests on the running cluster; ONLY=text for those named so (root)
	@xtask/bootstrap && cargo xtask conformance --only "$(ONLY)"

conformance-negative: ## Run them against a server that does nothing: none may pass
	@xtask/bootstrap && cargo run --quiet --package keelson-conformance -- --negative --only "$(ONLY)"

upstream-diff: ## Send Kubernetes' own API server and ours the same requests, and tell what they answer differently; ONLY=row file (root)
	@xtask/bootstrap && tests/upstream/run $(ONLY)

upstream-e2e: ## Run Kubernetes' own end-to-end tests on the running cluster; ONLY=expression for those named so (root)
	@xtask/bootstrap && tests/upstream/e2e $(if $(ONLY),'$(ONLY)')

test-clients: ## Run kubectl, Helm, client-go, Python's client and kube on a cluster of their own; ONLY=text (root)
	@xtask/bootstrap && tests/clients/run "$(ONLY)"

packages: ## Build .deb and .rpm packages and a signed apt repository into target/dist
	@xtask/bootstrap && cargo xtask dist --anywhere

e2e-systemd: ## Install the packages on machines of systemd-nspawn and use them (root)
	@xtask/bootstrap && tests/systemd/run

e2e-vm: ## Install them on guests of QEMU: cgroup v2, first boot, power cuts, a read-only root (root); CUTS=5
	@xtask/bootstrap && CUTS=$(or $(CUTS),1) tests/vm/run
