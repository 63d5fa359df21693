//! The queries in `deploy/clickhouse/queries/`, each for its numbers.

use std::path::Path;

use super::*;

/// The folder's query of this name with these parameters.
fn ask(engine: &Engine, name: &str, parameters: &[(&str, &str)]) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/clickhouse/queries");
    let sql = std::fs::read_to_string(folder.join(format!("{name}.sql"))).unwrap();
    engine.sql_with(&sql, parameters)
}

/// A ward of two people over three days, every type, some of it twice.
fn ward(engine: &Engine) -> (Model, [Uuid; 2], i64) {
    let users = [Uuid::new_v4(), Uuid::new_v4()];
    let now = now_ms(engine);
    let mut random = fastrand::Rng::with_seed(6);
    let mut model = Model::default();
    let rows: Vec<Row> = (0..1_200)
        .map(|_| {
            let kind = random.choice(EventType::ALL).unwrap();
            let value = f64::from(random.u32(400..1_600)) / 10.0;
            Row::new(users[random.usize(..2)], kind, value, now - 1_000 - random.i64(0..3 * 24 * HOUR_MS))
        })
        .collect();
    for rows in [&rows[..], &rows[100..700]] {
        insert(engine, rows, None);
        model.learn(rows);
    }
    (model, users, now)
}

/// The quantile between its two neighbours, as the engine's `quantileExactInclusive`.
fn quantile(values: &[f64], level: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = level * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

fn grouped<K: Ord>(rows: impl Iterator<Item = (K, f64)>) -> BTreeMap<K, Vec<f64>> {
    let mut groups: BTreeMap<K, Vec<f64>> = BTreeMap::new();
    rows.for_each(|(key, value)| groups.entry(key).or_default().push(value));
    groups
}

fn day_of(ms: i64) -> i64 {
    ms.div_euclid(24 * HOUR_MS)
}

fn day_named(day: &str) -> i64 {
    let date: jiff::civil::Date = day.parse().unwrap();
    day_of(jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).unwrap().as_millisecond())
}

fn statistics(values: &[f64]) -> [f64; 6] {
    let sum: f64 = values.iter().sum();
    let (least, most) = (quantile(values, 0.0), quantile(values, 1.0));
    [values.len() as f64, least, most, sum / values.len() as f64, quantile(values, 0.5), quantile(values, 0.95)]
}

fn fits(found: &[&str], expected: &[f64]) -> bool {
    found.len() >= expected.len() && expected.iter().zip(found).all(|(expected, found)| close(found, *expected))
}

#[test]
fn every_query_gives_the_models_numbers() {
    let Some(engine) = landing_zone() else { return };
    let (model, users, _) = ward(&engine);
    let days = grouped(
        model
            .rows()
            .filter(|row| row.event_type == EventType::HeartRate)
            .map(|row| ((day_of(row.timestamp), row.user_id.to_string()), row.value)),
    );
    let answer = ask(&engine, "daily_heart_rate", &[("days", "7")]);
    assert_eq!(cells(&answer).len(), days.len());
    for row in cells(&answer) {
        let values = &days[&(day_named(row[1]), row[0].to_owned())];
        assert!(fits(&row[2..], &statistics(values)), "{row:?}, and not {:?}", statistics(values));
    }
    for kind in &EventType::ALL {
        let of_day = grouped(
            model
                .rows()
                .filter(|row| row.event_type == *kind && row.user_id == users[0])
                .map(|row| (day_of(row.timestamp + 60 * 60_000), row.value)),
        );
        let user = users[0].to_string();
        let answer = ask(&engine, "daily_stats", &[("user_id", &user), ("event_type", kind.name()), ("days", "7")]);
        let found = cells(&answer);
        assert_eq!(found.len(), of_day.len(), "{}", kind.name());
        for row in found {
            let values = &of_day[&day_named(row[0])];
            assert!(fits(&row[3..], &statistics(values)), "{} {row:?}", kind.name());
            assert!(row[2] == kind.unit() && close(row[9], values.iter().sum()), "{row:?}");
        }
    }
    let steps = grouped(
        model
            .rows()
            .filter(|row| row.event_type == EventType::Steps)
            .map(|row| ((day_of(row.timestamp + 60 * 60_000), row.user_id.to_string()), row.value)),
    );
    let answer = ask(&engine, "daily_steps", &[("days", "7")]);
    assert_eq!(cells(&answer).len(), steps.len());
    for row in cells(&answer) {
        assert!(close(row[2], steps[&(day_named(row[1]), row[0].to_owned())].iter().sum()), "{row:?}");
    }
    // More days than fit before 1970: not an empty answer.
    let all = ask(&engine, "daily_heart_rate", &[("days", "30000")]);
    assert_eq!(cells(&all).len(), days.len());
}

#[test]
fn hours_minutes_and_last_values_are_the_models() {
    let Some(engine) = landing_zone() else { return };
    let (model, users, now) = ward(&engine);
    let hours = grouped(model.rows().filter(|row| row.user_id == users[1]).map(|row| {
        let hour = row.timestamp.div_euclid(HOUR_MS) * 3600;
        ((row.event_type.name().to_owned(), row.component.to_owned(), hour), row.value)
    }));
    let answer = ask(&engine, "hourly_metrics", &[("user_id", &users[1].to_string()), ("days", "7")]);
    assert_eq!(cells(&answer).len(), hours.len());
    for row in cells(&answer) {
        let hour = seconds_of(row[3]);
        let values = &hours[&(row[0].to_owned(), row[1].to_owned(), hour)];
        let [count, least, most, mean, ..] = statistics(values);
        assert!(fits(&row[4..], &[count, values.iter().sum(), least, most, mean]), "{row:?}");
    }

    // Minutes that lie wholly inside, whenever the engine looks; and a window that is known to hold something.
    let minutes = grouped(
        model
            .rows()
            .filter(|row| row.timestamp.div_euclid(60_000) * 60_000 >= now - 599 * 60_000)
            .map(|row| ((row.timestamp.div_euclid(60_000) * 60, row.event_type.name().to_owned()), row.value)),
    );
    assert!(minutes.len() > 50, "{}", minutes.len());
    let answer = ask(&engine, "realtime", &[("minutes", "600")]);
    let found: BTreeMap<_, _> =
        cells(&answer).into_iter().map(|row| ((seconds_of(row[0]), row[1].to_owned()), (row[3], row[4]))).collect();
    let oldest = (now - 601 * 60_000) / 1000;
    assert!(found.keys().all(|(minute, _)| *minute >= oldest), "{answer}");
    for (minute, values) in &minutes {
        let [count, _, _, mean, ..] = statistics(values);
        let (events, average) = found[minute];
        assert!(close(events, count) && close(average, mean), "{minute:?} {events} {average}");
    }

    let mut newest: BTreeMap<(Uuid, &str), &Row> = BTreeMap::new();
    for row in model.rows() {
        let known = newest.entry((row.user_id, row.event_type.name())).or_insert(row);
        if (row.timestamp, row.event_id) > (known.timestamp, known.event_id) {
            *known = row;
        }
    }
    let answer = ask(&engine, "last_values", &[("hours", "100")]);
    assert_eq!(cells(&answer).len(), newest.len());
    for row in cells(&answer) {
        let expected = newest[&(row[0].parse().unwrap(), row[1])];
        assert!(row[2] == expected.component && row[4] == expected.unit && close(row[3], expected.value), "{row:?}");
        let age: i64 = row[6].parse().unwrap();
        let at_ward = (now - expected.timestamp) / 1000;
        assert!((at_ward..at_ward + 60).contains(&age), "{row:?}, {at_ward} s when the ward was made");
    }
}

/// A time of TSV as seconds since 1970.
fn seconds_of(time: &str) -> i64 {
    let time: jiff::civil::DateTime = time.parse().unwrap();
    jiff::tz::TimeZone::UTC.to_timestamp(time).unwrap().as_second()
}

/// The platform document's own statements, as they stand there, for a reader whose profile has final = 1.
#[test]
fn the_documents_queries_keep_working() {
    let Some(engine) = landing_zone() else { return };
    let (model, users, _) = ward(&engine);
    let heart = model.rows().filter(|row| row.event_type == EventType::HeartRate).count();
    let daily = engine.sql(
        "SELECT user_id, toDate(timestamp) as date, count() as readings, min(value) as min_hr, max(value) as max_hr, \
         avg(value) as avg_hr, quantile(0.5)(value) as median_hr, quantile(0.95)(value) as p95_hr FROM biometric_events \
         WHERE event_type = 'heart_rate' AND timestamp >= now() - INTERVAL 7 DAY GROUP BY user_id, date ORDER BY date DESC \
         SETTINGS final = 1",
    );
    assert_eq!(cells(&daily).iter().map(|row| row[2].parse::<usize>().unwrap()).sum::<usize>(), heart);
    let minutes = engine.sql(
        "SELECT toStartOfMinute(timestamp) as minute, event_type, count() as events, avg(value) as avg_value \
         FROM biometric_events WHERE timestamp >= now() - INTERVAL 1 HOUR GROUP BY minute, event_type ORDER BY minute \
         SETTINGS final = 1",
    );
    assert!(!minutes.is_empty());
    let hours = engine.sql(&format!(
        "SELECT * FROM hourly_metrics WHERE user_id = '{}' AND hour >= now() - INTERVAL 30 DAY",
        users[0]
    ));
    assert!(!hours.is_empty());
    let funnel = engine.sql(
        "SELECT page, count() as views, uniqExact(user_id) as unique_users, avg(duration) as avg_duration \
         FROM user_activity WHERE timestamp >= now() - INTERVAL 1 DAY GROUP BY page ORDER BY views DESC SETTINGS final = 1",
    );
    assert_eq!(funnel, "");
}

#[test]
fn pages_sessions_hubs_and_devices_are_asked_for_by_their_queries() {
    let Some(engine) = landing_zone() else { return };
    let (user, session) = (Uuid::new_v4(), Uuid::new_v4());
    for (page, duration) in [("/home", 10), ("/home", 30), ("/pulse", 5)] {
        engine.sql(&format!(
            "INSERT INTO user_activity (event_id, user_id, session_id, page, action, timestamp, duration) VALUES \
             (generateUUIDv4(), '{user}', '{session}', '{page}', 'view', now64(3) - 60, {duration})"
        ));
    }
    assert_eq!(ask(&engine, "activity_funnel", &[("days", "1")]), "/home\t2\t1\t20\n/pulse\t1\t1\t5\n");
    let answer = ask(&engine, "sessions", &[("user_id", &user.to_string()), ("days", "1")]);
    assert_eq!(cells(&answer)[0][3..], ["3", "2", "45"]);
    engine.sql(
        "INSERT INTO gateway_status (gateway_id, at, clock, backlog_events) VALUES ('hub-1', now64(3), 'synced', 0)",
    );
    assert_eq!(cells(&ask(&engine, "hubs", &[]))[0][0], "hub-1");
    engine.sql(
        "INSERT INTO gateway_gaps (gateway_id, gap, cause, from_time, count, why, version) VALUES \
         ('hub-1', generateUUIDv4(), 'evicted', now64(3), 12, 'full', 1)",
    );
    let answer = ask(&engine, "hubs_lacking_rows", &[("days", "1")]);
    assert_eq!(cells(&answer)[0][5..], ["12", "0", "hub: evicted"]);
    engine.sql(
        "INSERT INTO coverage (gateway_id, device_id, hour, measured, silent, version) VALUES \
         ('hub-1', 'strap', toStartOfHour(now()), 600, 3000, 1)",
    );
    let answer = ask(&engine, "device_hours", &[("device_id", "strap"), ("days", "1")]);
    assert_eq!(cells(&answer)[0][11], "in reach and silent");
}

#[test]
fn every_query_of_the_folder_is_asked_by_a_test_and_says_what_it_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/clickhouse/queries");
    let tests = include_str!("queries.rs");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(tests.contains(&format!("\"{name}\"")), "{name} has no test");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("-- "), "{name} has no head");
    }
}
