# The targets of this repository; `make` alone lists them. Cargo and the scripts in tests/ do the work.

.DEFAULT_GOAL := help
.PHONY: help demo eks check docs test cluster simulate bench lint deny advisories nightly image

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# tests/demo.sh runs the last line too, so that the check cannot drift from the demo.
demo: ## Start the sandbox with the agent in front of it, until Ctrl-C
	cargo build --locked -p pod-identity-agent -p sandbox
	target/debug/sandbox up

eks: ## The same with a local EKS for the AWS CLI: EKS's API, and IAM and S3 by moto, until Ctrl-C
	tests/clients/python/prepare.sh
	tests/sandbox/moto/prepare.sh
	cargo build --locked -p pod-identity-agent -p sandbox
	PATH="$(CURDIR)/.cache/venv/bin:$$PATH" target/debug/sandbox up --eks

cluster: ## Two real Kubernetes nodes with the agent, until Ctrl-C; needs root. The first run builds Kubernetes: 15 minutes
	tests/cluster/prepare.sh
	cargo build --locked -p cluster
	target/debug/cluster up

# In the order in which it fails soonest.
check: ## Formatting, repository rules, clippy, unit tests; no root, under two minutes once built
	cargo fmt --all --check
	tests/repository/run.sh
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo test --workspace --lib --bins --locked --quiet

docs: ## The pages that rustdoc makes, with every link that leads nowhere an error
	# Private items too: the readers of these pages are those who change the code. So links to them are good.
	RUSTDOCFLAGS='-D warnings -A rustdoc::private_intra_doc_links' \
		cargo doc --workspace --no-deps --document-private-items --locked

test: ## Everything a change must pass; needs root, or WITHOUT_CLUSTER=1
	WITHOUT_CLUSTER=$(WITHOUT_CLUSTER) tests/run.sh

simulate: ## Run one simulated story: SEED= HOURS= PODS= BUG=
	$(if $(BUG),tests/simulation/bugs/cargo.sh run,cargo run --locked -p simulation) -- \
		$(or $(SEED),1) $(or $(HOURS),72) $(or $(PODS),60) $(BUG)

lint: ## Formatting and clippy only
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

deny: ## Licences, banned crates and sources of all dependencies
	tests/deny.sh policy

advisories: ## Known vulnerabilities of all dependencies; fetches the advisory database from the network
	tests/deny.sh advisories

bench: ## Measure the agent against a bare hyper server, and what crowds cost (root), in release mode
	cargo build --release --locked -p pod-identity-agent -p bench
	target/release/bench
	cargo test --release --locked -p e2e crowd:: -- --ignored --test-threads 1 --nocapture

image: ## Build target/image/pod-identity-agent.tar without a container engine; root on Debian, PROFILE=trial to test
	PROFILE=$(or $(PROFILE),release) deploy/image/build.sh

nightly: test docs bench ## What takes too long for each change: a hundred days, long lives, bench, fuzzing, planted bugs, the image and the release build (root), what the Prometheus operator makes of the monitors, advisories
	cargo --config tests/simulation/optimized.toml test --locked --workspace --test stories
	# Stories that no night has told before.
	day=$$(date +%Y%m%d) && cargo --config tests/simulation/optimized.toml run --locked -p simulation -- $${day}00-$${day}99 24 60
	NIGHTLY=1 cargo test --locked -p e2e -- ageing:: own_rotation:: cluster::api_server:: --test-threads 4
	# What make test leaves out because it takes long.
	NIGHTLY=1 cargo test --locked -p e2e -- cluster::amazon:: cluster::mistakes:: --include-ignored --test-threads 1
	cargo test --locked -p e2e -- node:: local_eks:: --ignored --test-threads 2
	target/release/bench judge
	tests/fuzz/run.sh
	tests/simulation/bugs/cargo.sh clippy --all-targets -- -D warnings
	BUGS=all tests/simulation/bugs/cargo.sh test --test planted -- --nocapture
	deploy/image/build.sh twice
	tests/release.sh
	tests/chart/operator/run.sh
	tests/deny.sh advisories || [ $$? -eq 75 ]
