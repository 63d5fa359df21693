//! The shipped profiles, inside the program.

/// File name and text of each.
pub(super) const FILES: [(&str, &str); 6] = [
    ("bluetooth-heart-rate.toml", include_str!("../../device-profiles/bluetooth-heart-rate.toml")),
    ("bluetooth-health-thermometer.toml", include_str!("../../device-profiles/bluetooth-health-thermometer.toml")),
    ("bthome-v2.toml", include_str!("../../device-profiles/bthome-v2.toml")),
    ("contec-cms50.toml", include_str!("../../device-profiles/contec-cms50.toml")),
    ("mqtt-vitals-json.toml", include_str!("../../device-profiles/mqtt-vitals-json.toml")),
    ("serial-vitals-line.toml", include_str!("../../device-profiles/serial-vitals-line.toml")),
];
