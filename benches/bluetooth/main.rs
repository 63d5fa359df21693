//! Bluetooth as a hub has it: the real binary, a D-Bus of its own, and twenty straps at 5 Hz under the tests' fake BlueZ.
//!
//! `cargo bench --bench bluetooth -- [--seconds S] [--runs R] [--dir DIR]`, S 20 and R 1 by default: CPU and memory
//! beside the same events through serial lines and beside a gateway without Bluetooth, and how long a notification takes
//! until it is durable. `... -- soak [--seconds S]`, an hour by default: the same straps under faults (`make soak-ble`).
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod fake;
mod load;
#[path = "../rig/mod.rs"]
mod rig;
mod room;
mod soak;

fn main() {
    let arguments = rig::Arguments::read();
    if arguments.has("soak") {
        soak::run(&arguments);
    } else {
        load::run(&arguments);
    }
}
