//! Rows of `gateway_gaps`: what left the store without being sent, and what profiles refused.

use serde::Serialize;
use uuid::Uuid;

use super::store_reports;
use crate::event::NAMESPACE;
use crate::forward::Gate;
use crate::local::board::Board;
use crate::reading::Heard;
use crate::report::{Kind, Report};
use crate::store::{Gap, GapCause};

/// Gaps that become reports at once.
const AT_ONCE: usize = 256;

#[derive(Debug, Serialize)]
struct Row<'a> {
    gateway_id: &'a str,
    gap: Uuid,
    device_id: Option<&'a str>,
    cause: &'static str,
    from_time: Option<i64>,
    to_time: Option<i64>,
    count: u64,
    why: &'a str,
    version: u64,
}

/// Makes reports of the store's gaps and, where `refused` says so, of what was refused since the last time. Nothing is
/// said while the clock may still turn out to be wrong, and nothing is dropped before it is stored.
pub(super) async fn report(board: &Board, refused: bool) {
    if *board.gate.borrow() != Gate::Open {
        return;
    }
    let gaps = board.store.gaps();
    for gaps in gaps.chunks(AT_ONCE) {
        let Some((through, _)) = gaps.last() else { break };
        let gone = gaps.iter().map(|(_, gap)| gap.clone()).collect();
        if board.gone.send(gone).await.is_err() {
            return;
        }
        let rows = gaps.iter().filter_map(|(number, gap)| of_store(board, *number, gap));
        if !store_reports(board, rows.collect()).await || board.store.forget_gaps(*through).await.is_err() {
            return;
        }
    }
    if !refused {
        return;
    }
    let refusals = board.taps.seen.take_refusals();
    let rows = refusals.iter().filter_map(|(device, refusals)| {
        let span = (Some(refusals.from), Some(refusals.to));
        row(board, Uuid::new_v4(), Some(device), "refused", span, refusals.count, &refusals.why)
    });
    let rows: Vec<Report> = rows.collect();
    if !rows.is_empty() && !store_reports(board, rows).await {
        board.taps.seen.put_back(refusals);
    }
}

/// Its id follows from what it is, so that a gap that is reported twice, after a crash, is one row.
fn of_store(board: &Board, number: u64, gap: &Gap) -> Option<Report> {
    let (cause, why) = match gap.cause {
        GapCause::Evicted => ("evicted", "the store was full, or they were older than store.max_age"),
        GapCause::Damaged => ("damaged", "the disk was damaged"),
    };
    let name = serde_cbor::to_vec(&(number, gap)).ok()?;
    let id = Uuid::new_v5(&NAMESPACE, &name);
    row(board, id, gap.device.as_deref(), cause, (gap.from, gap.to), gap.count, why)
}

fn row(
    board: &Board,
    gap: Uuid,
    device_id: Option<&str>,
    cause: &'static str,
    (from, to): (Option<Heard>, Option<Heard>),
    count: u64,
    why: &str,
) -> Option<Report> {
    let timeline = board.timeline.borrow().clone();
    let gateway_id = &*timeline.bases.last_key_value()?.1.gateway_id;
    let anchors = &timeline.anchors;
    let wall = |heard| anchors.known_ms(anchors.version(), heard).map(|(ms, _)| ms);
    let (from_time, to_time) = (from.and_then(wall), to.and_then(wall));
    let row = Row { gateway_id, gap, device_id, cause, from_time, to_time, count, why, version: 1 };
    let key = device_id.unwrap_or(gateway_id).to_owned();
    Some(Report { kind: Kind::Gap, key, row: serde_json::to_string(&row).ok()? })
}
