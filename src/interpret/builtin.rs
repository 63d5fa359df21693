//! The shipped profiles, inside the program.

/// File name and text of each.
pub const FILES: [(&str, &str); 38] = [
    ("berry-bm1000.toml", include_str!("../../device-profiles/berry-bm1000.toml")),
    ("blue-maestro-tempo-disc.toml", include_str!("../../device-profiles/blue-maestro-tempo-disc.toml")),
    ("bluetooth-battery.toml", include_str!("../../device-profiles/bluetooth-battery.toml")),
    ("bluetooth-blood-pressure.toml", include_str!("../../device-profiles/bluetooth-blood-pressure.toml")),
    ("bluetooth-body-composition.toml", include_str!("../../device-profiles/bluetooth-body-composition.toml")),
    ("bluetooth-glucose.toml", include_str!("../../device-profiles/bluetooth-glucose.toml")),
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
    ("govee-h5074.toml", include_str!("../../device-profiles/govee-h5074.toml")),
    ("hplus-band.toml", include_str!("../../device-profiles/hplus-band.toml")),
    ("infinitime-steps.toml", include_str!("../../device-profiles/infinitime-steps.toml")),
    ("jumper-jpd-500f.toml", include_str!("../../device-profiles/jumper-jpd-500f.toml")),
    ("mqtt-step-counter.toml", include_str!("../../device-profiles/mqtt-step-counter.toml")),
    ("mqtt-vitals-json.toml", include_str!("../../device-profiles/mqtt-vitals-json.toml")),
    ("nonin-3230.toml", include_str!("../../device-profiles/nonin-3230.toml")),
    ("nonin-ascii.toml", include_str!("../../device-profiles/nonin-ascii.toml")),
    ("nonin-oem3.toml", include_str!("../../device-profiles/nonin-oem3.toml")),
    ("nordic-thingy52.toml", include_str!("../../device-profiles/nordic-thingy52.toml")),
    ("polar-broadcast.toml", include_str!("../../device-profiles/polar-broadcast.toml")),
    ("qingping-thermometer.toml", include_str!("../../device-profiles/qingping-thermometer.toml")),
    ("ruuvi-tag.toml", include_str!("../../device-profiles/ruuvi-tag.toml")),
    ("sensirion-sht4x-gadget.toml", include_str!("../../device-profiles/sensirion-sht4x-gadget.toml")),
    ("serial-vitals-line.toml", include_str!("../../device-profiles/serial-vitals-line.toml")),
    ("xiaomi-mi-band-advertisement.toml", include_str!("../../device-profiles/xiaomi-mi-band-advertisement.toml")),
    ("xiaomi-mi-band-heart-rate.toml", include_str!("../../device-profiles/xiaomi-mi-band-heart-rate.toml")),
    ("xiaomi-mi-scale-2.toml", include_str!("../../device-profiles/xiaomi-mi-scale-2.toml")),
    ("xiaomi-mi-scale.toml", include_str!("../../device-profiles/xiaomi-mi-scale.toml")),
    ("xiaomi-mibeacon.toml", include_str!("../../device-profiles/xiaomi-mibeacon.toml")),
    ("xiaomi-thermometer-atc1441.toml", include_str!("../../device-profiles/xiaomi-thermometer-atc1441.toml")),
    ("xiaomi-thermometer-pvvx.toml", include_str!("../../device-profiles/xiaomi-thermometer-pvvx.toml")),
    ("xoss-x2.toml", include_str!("../../device-profiles/xoss-x2.toml")),
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
