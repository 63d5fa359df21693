//! A configuration that is read again: new sensors are taken in and old ones let go, and the links of the others stay.

use std::time::Duration;

use crate::rig::bluez::Bluez;
use crate::rig::gateway::{Hub, assert_balanced, lines_of, wait_for};

const DEADLINE: Duration = Duration::from_secs(20);

fn entry(name: &str, address: &str) -> String {
    format!("[[device]]\nname = \"{name}\"\nprofile = \"bluetooth-heart-rate\"\nble = \"{address}\"\n")
}

#[test]
fn an_added_sensor_and_one_that_is_taken_out_leave_the_others_their_links() {
    let Some(bluez) = Bluez::start() else { return };
    let straps = bluez.straps(3, 10.0);
    let mut hub = Hub::new("");
    let archive = hub.dir.path().join("archive");
    let head = format!(
        "[gateway]\nid = \"hub-test\"\ndata_dir = {:?}\n[clock]\ntrust = \"always\"\n[store]\ncommit_interval = \"100 ms\"\n\
         [[destination]]\nname = \"archive\"\nkind = \"file\"\ndir = {archive:?}\n",
        hub.data_dir()
    );
    std::fs::write(hub.config(), head + &entry("one", &straps[0])).unwrap();
    let folder = hub.dir.path().join("devices.d");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("two.toml"), entry("two", &straps[1])).unwrap();
    hub.env("DBUS_SYSTEM_BUS_ADDRESS", &bluez.bus_address());
    hub.start();
    let heard = |name: &str| lines_of(&archive).iter().filter(|event| event["device_id"] == name).count();
    wait_for(DEADLINE, || (heard("one") > 0 && heard("two") > 0).then_some(())).expect("both straps stream");

    std::fs::remove_file(folder.join("two.toml")).unwrap();
    std::fs::write(folder.join("three.toml"), entry("three", &straps[2])).unwrap();
    hub.signal("HUP");
    wait_for(DEADLINE, || (heard("three") > 0).then_some(())).expect("the new strap streams");
    wait_for(DEADLINE, || (!bluez.device(&straps[1]).linked).then_some(())).expect("the old strap is let go");
    assert_eq!(bluez.device(&straps[0]).connects, 1, "the first strap's link was touched");
    assert!(bluez.device(&straps[0]).linked);

    let before = heard("one");
    wait_for(DEADLINE, || (heard("one") > before).then_some(())).expect("the first strap streams on");
    assert_balanced(&hub.wait_until_drained(1, DEADLINE));
    assert_eq!(hub.stop(), 0, "{}", hub.log());
}
