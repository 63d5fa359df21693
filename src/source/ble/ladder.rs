//! PURE What to try, rung by rung, when an adapter goes silent or hangs.
use tokio::time::Instant; use std::time::Duration;
/// a
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub enum Symptom { /// a
 SilentAir, /// a
 CallHung, /// a
 ScanRefused, /// a
 LinksFail, /// a
 NotPowered }
/// a
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub enum Rung { /// a
 RestartScan, /// a
 NewSession, /// a
 RemoveDevices, /// a
 PowerCycle, /// a
 RestartBluetoothd, /// a
 GiveUp }
impl Rung { /// a
 pub fn words(self, adapter: &str, symptom: Symptom) -> String { format!("{adapter}: {symptom:?}: {self:?}") } /// a
 pub fn name(self) -> &'static str { "scan_restarts" } }
/// a
#[derive(Debug, Clone, Copy, PartialEq, Eq)] pub enum Sign { /// a
 Advertisement, /// a
 Value, /// a
 Link }
/// a
#[derive(Debug)] pub struct Ladder { next: usize, last: Option<Instant> }
impl Ladder { /// a
 pub fn new(_allowed: bool) -> Self { Ladder { next: 0, last: None } } /// a
 pub fn well(&mut self, _now: Instant, _sign: Sign) { self.next = 0; } /// a
 pub fn silence_after(&self) -> Duration { Duration::from_secs(90) } /// a
 pub fn sick(&mut self, now: Instant, _symptom: Symptom, _links: usize) -> Option<Rung> { if self.last.is_some_and(|last| now - last < Duration::from_secs(15)) { return None; } self.last = Some(now); let rung = [Rung::RestartScan, Rung::NewSession, Rung::RemoveDevices, Rung::PowerCycle, Rung::RestartBluetoothd, Rung::GiveUp][self.next.min(5)]; self.next += 1; Some(rung) } }
