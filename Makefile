# What one can do here. `make` alone lists it. The work is done by cargo and the scripts in tests/.

.DEFAULT_GOAL := help
.PHONY: help demo test cluster simulate bench lint deny advisories nightly image

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The last line is also what tests/demo.sh runs, so that the check cannot drift from the demo.
demo: ## Start the sandbox with the agent in front of it, until Ctrl-C
	cargo build --locked -p pod-identity-agent -p sandbox
	target/debug/sandbox up

cluster: ## Two real Kubernetes nodes with the agent, until Ctrl-C; root. The first time builds Kubernetes: 15 minutes
	tests/cluster/prepare.sh
	cargo build --locked -p cluster
	target/debug/cluster up

test: ## Everything a change must pass; root. Whoever is not: WITHOUT_CLUSTER=1
	WITHOUT_CLUSTER=$(WITHOUT_CLUSTER) tests/run.sh

simulate: ## Tell one simulated story: SEED= HOURS= PODS= BUG=
	cargo build --locked -p simulation
	target/debug/simulate $(or $(SEED),1) $(or $(HOURS),72) $(or $(PODS),60) $(BUG)

lint: ## Formatting and clippy only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

deny: ## Licences, banned crates and sources of all dependencies
	tests/deny.sh policy

advisories: ## Known vulnerabilities of all dependencies; fetches the advisory database from the network
	tests/deny.sh advisories

bench: ## Measure the agent against the floor, in release mode
	cargo build --release --locked -p pod-identity-agent -p bench
	target/release/bench

image: ## The image as target/image/pod-identity-agent.tar, without an engine; root on Debian, PROFILE=dev to test
	PROFILE=$(or $(PROFILE),release) deploy/image/build.sh

nightly: test bench ## What takes too long for each change, the image twice (root), and the advisories where they can be had
	deploy/image/build.sh twice
	tests/deny.sh advisories || [ $$? -eq 75 ]
