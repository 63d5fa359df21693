# The two commands a developer needs first are `make demo` and `make test`; both do their own set-up.
# The logic is in scripts/; further arguments go in ARGS, as in `make demo ARGS="--duration 30s"`.

ARGS ?=

.PHONY: demo test faults test-bluez-vm lint bench soak-ble arm64 armv7

# The gateway for real with virtual patients: no broker, warehouse, Bluetooth or hardware.
demo:
	@scripts/setup.sh demo
	cargo run --profile demo --no-default-features --features serial,mqtt,clickhouse -- demo $(ARGS)

# All tests, with the real parts they need; says at the end what was skipped and why.
test:
	@scripts/test.sh $(ARGS)

# N kills, everything judged at the far end; SEED=S begins with that campaign, and repeats it (docs/testing.md).
N ?= 1000
faults:
	@scripts/setup.sh test
	cargo test --features failpoints --test faults -- --kills $(N) $(if $(SEED),--seed $(SEED)) --every-point $(ARGS)

# The gateway against the real bluetoothd, in an emulated machine with emulated straps (docs/testing.md).
test-bluez-vm:
	@tests/bluez_vm/run.sh $(ARGS)

lint:
	@scripts/setup.sh test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

bench:
	@scripts/setup.sh test
	cargo bench --bench '*' -- $(ARGS)

# An hour of Bluetooth faults; ARGS=20 for twenty minutes.
soak-ble:
	@scripts/soak-ble.sh $(ARGS)

# With Debian's own cross toolchain, no containers.
arm64:
	@scripts/build-arm64.sh $(ARGS)

# With cross and its containers. cross does not read cross.toml by itself under this name.
armv7:
	CROSS_CONFIG=cross.toml cross build --release --target armv7-unknown-linux-gnueabihf $(ARGS)
