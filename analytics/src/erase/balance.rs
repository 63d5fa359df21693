//! What goes is counted first, hour by hour, so that nobody takes it for lost.

use tokio::time::Instant;

use super::state::State;
use super::zone::Zone;
use super::{Error, Order};

/// How long before an erasure an event was ingested at most, for its repeat to be expected: Kafka keeps 14 days.
const REPEATS_DAYS: &str = "30";

/// Writes what the round takes away into `erased_hours`, and the ids that may come again into `erased_events`.
///
/// A row counts as the completeness views count it: once, and only where it is not deleted. An event that was erased
/// before, or that lives on elsewhere, is a repeat; it was counted then, or the hub's word still stands for the other row.
pub(super) async fn count(zone: &Zone<'_>, order: &Order, state: &State, end: Instant) -> Result<(), Error> {
    let params: [(&str, &str); 4] = [
        ("user", &order.user().to_string()),
        ("erasure", &state.erasure.to_string()),
        ("round", &state.round.to_string()),
        ("cut", &state.cut.to_string()),
    ];
    // A try that was cut off may have counted an hour that a correction has emptied since.
    if let Some(hours) = zone.table("erased_hours")
        && zone.number(TRIED, &params[1..3]).await? > 0
    {
        zone.alter(hours, "DELETE WHERE (erasure, round) = ({erasure:UUID}, {round:UInt16})", &params[1..3], end)
            .await?;
    }
    zone.execute(HOURS, &params).await?;
    let ids = IDS.replace("{days}", REPEATS_DAYS);
    zone.execute(&ids, &params).await
}

const TRIED: &str = "SELECT count() AS n FROM erased_hours WHERE (erasure, round) = ({erasure:UUID}, {round:UInt16})";

const HOURS: &str = "INSERT INTO erased_hours (gateway_id, device_id, hour, erasure, round, count, ids_xor) \
     SELECT gateway_id, device_id, toStartOfHour(timestamp) AS hour, {erasure:UUID}, {round:UInt16}, count(), \
     groupBitXor(toUInt128(event_id)) FROM biometric_events FINAL \
     WHERE user_id = {user:UUID} AND ingested_at <= fromUnixTimestamp64Milli({cut:Int64}, 'UTC') \
     AND event_id NOT IN (SELECT event_id FROM erased_events WHERE (erasure, round) != ({erasure:UUID}, {round:UInt16})) \
     GROUP BY gateway_id, device_id, hour SETTINGS async_insert = 0, do_not_merge_across_partitions_select_final = 1";

const IDS: &str = "INSERT INTO erased_events (event_id, erasure, round, erased_at) \
     SELECT DISTINCT event_id, {erasure:UUID}, {round:UInt16}, now() FROM ( \
     SELECT event_id FROM biometric_events FINAL WHERE user_id = {user:UUID} \
     AND ingested_at <= fromUnixTimestamp64Milli({cut:Int64}, 'UTC') \
     AND ingested_at > fromUnixTimestamp64Milli({cut:Int64}, 'UTC') - INTERVAL {days} DAY \
     UNION ALL \
     SELECT event_id FROM biometric_events WHERE user_id = {user:UUID} AND deleted = 1 \
     AND ingested_at <= fromUnixTimestamp64Milli({cut:Int64}, 'UTC') \
     AND event_id NOT IN (SELECT event_id FROM biometric_events FINAL WHERE user_id = {user:UUID} \
     AND ingested_at > fromUnixTimestamp64Milli({cut:Int64}, 'UTC')) \
     ) SETTINGS async_insert = 0, final = 0, do_not_merge_across_partitions_select_final = 1";
