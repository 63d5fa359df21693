//! The shipped profiles, inside the program.

/// File name and text of each.
pub const FILES: [(&str, &str); 17] = [
    ("bluetooth-battery.toml", include_str!("../../device-profiles/bluetooth-battery.toml")),
    ("bluetooth-blood-pressure.toml", include_str!("../../device-profiles/bluetooth-blood-pressure.toml")),
    ("bluetooth-health-thermometer.toml", include_str!("../../device-profiles/bluetooth-health-thermometer.toml")),
    ("bluetooth-heart-rate.toml", include_str!("../../device-profiles/bluetooth-heart-rate.toml")),
    ("bluetooth-pulse-oximeter.toml", include_str!("../../device-profiles/bluetooth-pulse-oximeter.toml")),
    (
        "bluetooth-running-speed-cadence.toml",
        include_str!("../../device-profiles/bluetooth-running-speed-cadence.toml"),
    ),
    ("bluetooth-weight-scale.toml", include_str!("../../device-profiles/bluetooth-weight-scale.toml")),
    ("bthome-v2.toml", include_str!("../../device-profiles/bthome-v2.toml")),
    ("contec-cms50.toml", include_str!("../../device-profiles/contec-cms50.toml")),
    ("contec-cms50dplus.toml", include_str!("../../device-profiles/contec-cms50dplus.toml")),
    ("ds18b20.toml", include_str!("../../device-profiles/ds18b20.toml")),
    ("mqtt-step-counter.toml", include_str!("../../device-profiles/mqtt-step-counter.toml")),
    ("mqtt-vitals-json.toml", include_str!("../../device-profiles/mqtt-vitals-json.toml")),
    ("nonin-ascii.toml", include_str!("../../device-profiles/nonin-ascii.toml")),
    ("nonin-oem3.toml", include_str!("../../device-profiles/nonin-oem3.toml")),
    ("serial-vitals-line.toml", include_str!("../../device-profiles/serial-vitals-line.toml")),
    ("xiaomi-mibeacon.toml", include_str!("../../device-profiles/xiaomi-mibeacon.toml")),
];

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_in_the_folder_is_inside_the_program() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("device-profiles");
        let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
        names.sort();
        assert_eq!(names, super::FILES.map(|(name, _)| name));
    }
}
