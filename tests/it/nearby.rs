//! What is near: merged, bounded, and the one that is held to the hub is found.

use std::sync::Arc;
use std::time::Duration;

use biogate::source::ble::nearby::{MOST, Nearby, Sighting};
use bytes::Bytes;
use proptest::prelude::*;
use tokio::time::Instant;

fn hci0() -> Arc<str> {
    "hci0".into()
}

fn signal(rssi: i16) -> Sighting {
    Sighting { rssi: Some(rssi), ..Sighting::default() }
}

#[test]
fn partial_sightings_become_one_peripheral() {
    let (mut nearby, now) = (Nearby::default(), Instant::now());
    let told = [
        Sighting { name: Some("Polar H10".into()), ..signal(-60) },
        Sighting { services: vec!["180d".into()], ..Sighting::default() },
        Sighting { service_data: vec![("fcd2".into(), Bytes::from_static(b"\x40\x01"))], ..Sighting::default() },
        Sighting { service_data: vec![("fcd2".into(), Bytes::from_static(b"\x40\x02"))], ..Sighting::default() },
        Sighting { manufacturer: vec![(0x0499, Bytes::from_static(b"\x05"))], paired: Some(true), ..signal(-60) },
    ];
    told.into_iter().for_each(|sighting| nearby.hear(now, &hci0(), "A0:9E:1A:00:11:22", sighting));
    let near = nearby.snapshot(now + Duration::from_secs(7)).remove(0);
    assert_eq!((near.name.as_deref(), near.rssi, near.seconds), (Some("Polar H10"), Some(-60), 7));
    assert_eq!((&*near.services[0], &*near.service_data[0].hex), ("180d", "4002"));
    assert_eq!((&*near.manufacturer[0].id, &*near.manufacturer[0].hex), ("0499", "05"));
    assert!(near.paired && !near.connected && !near.rising);
    let (name, services) = nearby.heard_of("hci0", "A0:9E:1A:00:11:22").unwrap();
    assert_eq!((name.map(|name| &**name), services.len()), (Some("Polar H10"), 1));
    assert!(nearby.heard_of("hci1", "A0:9E:1A:00:11:22").is_none());
}

#[test]
fn ten_thousand_rotating_addresses_stay_within_the_bound_and_the_familiar_one_stays() {
    let (mut nearby, start) = (Nearby::default(), Instant::now());
    for n in 0..10_000u32 {
        let now = start + Duration::from_millis(u64::from(n) * 10);
        nearby.hear(now, &hci0(), &format!("40:00:00:00:{:02X}:{:02X}", n / 256, n % 256), signal(-80));
        if n % 100 == 0 {
            nearby.hear(now, &hci0(), "A0:9E:1A:00:11:22", signal(-70));
        }
        assert!(nearby.len() <= MOST);
    }
    assert_eq!(nearby.len(), MOST);
    assert!(nearby.heard_of("hci0", "A0:9E:1A:00:11:22").is_some());
    assert!(nearby.heard_of("hci0", "40:00:00:00:00:00").is_none());
    nearby.forget_unheard(start + Duration::from_secs(100), Duration::from_secs(3));
    assert!(nearby.len() < MOST && !nearby.is_empty());
    nearby.forget_unheard(start + Duration::from_secs(200), Duration::from_secs(3));
    assert!(nearby.is_empty());
}

#[test]
fn one_with_a_link_is_not_forgotten_because_it_is_silent() {
    let (mut nearby, now) = (Nearby::default(), Instant::now());
    nearby.hear(now, &hci0(), "A", Sighting { connected: Some(true), ..Sighting::default() });
    nearby.forget_unheard(now + Duration::from_secs(3_600), Duration::from_secs(60));
    assert_eq!(nearby.len(), 1);
    nearby.forget("hci0", "A");
    assert!(nearby.is_empty());
}

#[test]
fn the_strongest_rising_one_is_the_one_that_is_held_to_the_hub() {
    let (mut nearby, start) = (Nearby::default(), Instant::now());
    for second in 0..30u64 {
        let now = start + Duration::from_secs(second);
        nearby.hear(now, &hci0(), "television", signal(-35 - (second % 3) as i16));
        nearby.hear(now, &hci0(), "strap", signal(if second < 24 { -75 } else { -48 }));
        nearby.hear(now, &hci0(), "watch", signal(-90 + second as i16 / 2));
    }
    let now = start + Duration::from_secs(30);
    let snapshot = nearby.snapshot(now);
    assert_eq!(&*snapshot[0].address, "television");
    let marked: Vec<&str> = snapshot.iter().filter(|near| near.this_one).map(|near| &*near.address).collect();
    assert_eq!(marked, ["strap"]);
    // It was taken away without a word: an old signal marks nothing.
    assert!(nearby.snapshot(now + Duration::from_secs(30)).iter().all(|near| !near.this_one));
}

#[test]
fn the_adapter_that_hears_best_is_known() {
    let (mut nearby, now) = (Nearby::default(), Instant::now());
    nearby.hear(now, &hci0(), "A", signal(-80));
    nearby.hear(now, &"hci1".into(), "A", signal(-50));
    nearby.hear(now, &"hci2".into(), "A", Sighting::default());
    assert_eq!(nearby.best_adapter("A"), Some(("hci1".into(), Some(-50))));
    assert_eq!(nearby.best_adapter("B"), None);
}

fn payload() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

prop_compose! {
    fn sighting()(
        name in proptest::option::of(".{0,200}"),
        rssi in proptest::option::of(any::<i16>()),
        services in proptest::collection::vec("[0-9a-f]{4}", 0..40),
        service_data in proptest::collection::vec(("[0-9a-f]{4}", payload()), 0..40),
        manufacturer in proptest::collection::vec((any::<u16>(), payload()), 0..40),
    ) -> Sighting {
        Sighting {
            name,
            rssi,
            services: services.into_iter().map(Into::into).collect(),
            service_data: service_data.into_iter().map(|(uuid, payload)| (uuid.into(), payload)).collect(),
            manufacturer,
            ..Sighting::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_advertised_what_is_kept_is_bounded_and_legible(
        told in proptest::collection::vec((0..3u8, 0..20u8, 0..5_000u64, sighting()), 1..60),
    ) {
        let (mut nearby, start) = (Nearby::default(), Instant::now());
        let mut last = start;
        for (adapter, address, ms, sighting) in told {
            // Also backwards: events of two adapters may overtake each other.
            let now = start + Duration::from_millis(ms);
            last = last.max(now);
            nearby.hear(now, &format!("hci{adapter}").into(), &format!("A{address}"), sighting);
        }
        let snapshot = nearby.snapshot(last);
        prop_assert_eq!(snapshot.len(), nearby.len());
        prop_assert!(snapshot.iter().filter(|near| near.this_one).count() <= 1);
        prop_assert!(snapshot.is_sorted_by_key(|near| std::cmp::Reverse(near.rssi.unwrap_or(i16::MIN))));
        for near in &snapshot {
            let name = near.name.as_deref().unwrap_or("x");
            prop_assert!((1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control));
            prop_assert!(near.services.len() <= 16 && near.service_data.len() <= 16 && near.manufacturer.len() <= 16);
            prop_assert!(near.service_data.iter().chain(&near.manufacturer).all(|payload| payload.hex.len() <= 128));
            prop_assert!(near.rssi.is_none_or(|rssi| (-127..=20).contains(&rssi)));
        }
        let text = serde_json::to_string(&snapshot).unwrap();
        let back: Vec<biogate::source::ble::nearby::Near> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(back, snapshot);
    }
}
