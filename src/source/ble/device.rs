//! The driver of one device: does on the bus what [`Link`] says, and delivers what must not be dropped.
//!
//! One task per device for as long as the source runs; it outlives adapters and restarts of bluetoothd. At most one
//! call is under way; each has a deadline of its own, and the link's state another.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::reading::{Channel, Reading};
use crate::source::ble::BleDevice;
use crate::source::ble::fetch::{self, End, Fetch};
use crate::source::ble::flow::{Flow, Flows, KEPT, Route};
use crate::source::ble::link::{Do, Failure, Happened, Link, kind_of};
use crate::source::ble::talk::{self, Heard, Linked, Radio, Talk};
use crate::source::ble::told::{Asked, Told};
use crate::source::context::Context;
use crate::source::delivery::{Delivery, Receipt};
use crate::source::health::{Count, Kind};

/// A stored record is committed at once: a receipt that is awaited fills this window.
const RECEIPT_WINDOW: usize = 2;

/// Receipts that are waited for at most, before the next record is taken.
const AWAITED: usize = 256;

/// A device's ends of its channels.
pub(super) struct Ends {
    pub(super) told: mpsc::Receiver<Told>,
    pub(super) asks: mpsc::Sender<(usize, Asked)>,
    pub(super) flows: Arc<Flows>,
}

/// A reading that waits for its place at a stop waits no longer.
const LAST: Duration = Duration::from_millis(100);

/// Ending a link that hangs is not waited for longer.
const LEAVE: Duration = Duration::from_secs(5);

type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Delivering = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a call ended.
enum Outcome {
    Connected(Result<(), Failure>),
    Subscribed(Result<Box<Linked>, Failure>),
    Talked { talk: Box<Talk>, heard: Vec<Heard>, failed: Option<Failure> },
}

/// Runs one device until the source stops.
pub(super) async fn run(number: usize, settings: BleDevice, ends: Ends, context: Context) {
    let health = context.health.device(&settings.device);
    health.set_kind(Kind::Bluetooth);
    let (keep, kept) = mpsc::channel(KEPT);
    let kind = kind_of(&settings.plan);
    let flow = Arc::new(Flow::new(&settings, context.inlet.device(), health));
    let mut device = Device {
        number,
        link: Link::new(kind, settings.silence),
        settings,
        asks: ends.asks,
        flows: ends.flows,
        flow,
        keep,
        radio: None,
        work: None,
        subscribe_next: false,
        talk: None,
        fetch: None,
        last_record: None,
        before: 0,
        clock_checked: false,
        delivering: None,
        receipts: VecDeque::new(),
        lacking: BTreeSet::new(),
        context,
    };
    device.tell_state();
    device.live(ends.told, kept).await;
}

struct Device {
    number: usize,
    settings: BleDevice,
    link: Link,
    asks: mpsc::Sender<(usize, Asked)>,
    flows: Arc<Flows>,
    flow: Arc<Flow>,
    keep: mpsc::Sender<Reading>,
    radio: Option<Radio>,
    work: Option<Work>,
    /// The link is up, but BlueZ's connect has not come back.
    subscribe_next: bool,
    /// What is said on the link once everything is subscribed; away while it talks.
    talk: Option<Box<Talk>>,
    /// The stored records of this link.
    fetch: Option<Fetch>,
    /// The newest record that is durable.
    last_record: Option<u16>,
    /// How many values there were before the last subscription.
    before: u64,
    /// The hub has set or checked the device's clock on this link.
    clock_checked: bool,
    delivering: Option<Delivering>,
    receipts: VecDeque<oneshot::Receiver<()>>,
    /// What its profile asks for and it was told to lack.
    lacking: BTreeSet<Arc<str>>,
    context: Context,
}

impl Device {
    async fn live(&mut self, mut told: mpsc::Receiver<Told>, mut kept: mpsc::Receiver<Reading>) {
        let mut stop = self.context.stop.clone();
        let flow = self.flow.clone();
        loop {
            let now = Instant::now();
            self.rest_if_all_is_fetched().await;
            self.start_talking(now);
            let talk = self.talk.as_ref().and_then(|talk| talk.next_at());
            let fetch = self.fetch.as_ref().and_then(Fetch::next_at);
            let wake = [self.link.wake_at(), talk, fetch].into_iter().flatten().min();
            // What comes before the last subscription is taken after it, when the device's clock is known.
            let may_take = self.delivering.is_none() && self.receipts.len() < AWAITED && !self.link.is_discovering();
            tokio::select! {
                biased;
                () = stop.wait() => break,
                word = told.recv() => match word {
                    Some(word) => self.told(word).await,
                    None => break,
                },
                outcome = of(&mut self.work) => { self.work = None; self.done(outcome).await }
                () = of(&mut self.delivering) => self.delivering = None,
                durable = first_of(&mut self.receipts) => {
                    self.receipts.pop_front();
                    if durable && let Some(fetch) = &mut self.fetch { fetch.durable(Instant::now()); }
                }
                Some(reading) = kept.recv(), if may_take => self.take_kept(reading),
                () = flow.first.notified() => self.happened(Happened::Values(flow.values.load(Relaxed))).await,
                () = async { match wake { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => {
                    self.happened(Happened::Values(flow.values.load(Relaxed))).await;
                    self.happened(Happened::Time).await;
                    if let Some(fetch) = &mut self.fetch { fetch.time(Instant::now()); }
                }
            }
        }
        if let Some(delivering) = self.delivering.take()
            && timeout(LAST, delivering).await.is_err()
        {
            self.flow.health.count(Count::Dropped, 1);
        }
        self.hand_over(&mut kept);
        self.leave().await;
        self.hand_over(&mut kept);
        // Where only its entry is gone, others want the radio.
        let _nobody_listens = self.asks.try_send((self.number, Asked::Free));
        self.flow.health.set_state("stopped");
    }

    /// At a stop: what was confirmed to a device on the air is delivered while there are places, and else counted.
    fn hand_over(&mut self, kept: &mut mpsc::Receiver<Reading>) {
        while let Ok(reading) = kept.try_recv() {
            let delivery = Delivery::of(reading).with_clock_checked(self.clock_checked);
            if self.flow.inlet.try_put(delivery).is_err() {
                self.flow.health.count(Count::Dropped, 1);
            }
        }
    }

    async fn told(&mut self, word: Told) {
        match word {
            Told::Heard => self.happened(Happened::Heard).await,
            Told::Turn(radio) => {
                self.radio.get_or_insert(radio);
                self.happened(Happened::Turn).await;
            }
            Told::Linked => {
                self.happened(Happened::Linked).await;
                if self.link.is_discovering() {
                    self.ask(Asked::Linked).await;
                }
            }
            Told::Dropped => self.happened(Happened::Dropped).await,
            Told::Yield => self.happened(Happened::Yield).await,
            Told::RadioGone => {
                if let Some(radio) = self.radio.take() {
                    self.flows.close(&radio.place);
                }
                (self.work, self.talk, self.fetch, self.subscribe_next) = (None, None, None, false);
                self.happened(Happened::RadioGone).await;
            }
        }
    }

    async fn happened(&mut self, happened: Happened) {
        let flowing = matches!(happened, Happened::Values(_));
        let todo = self.link.on(Instant::now(), happened, fastrand::f64());
        for action in todo {
            self.act(action).await;
        }
        if flowing && self.link.is_streaming() {
            self.ask(Asked::Flowing).await;
        }
        self.tell_state();
    }

    async fn act(&mut self, action: Do) {
        match action {
            Do::Ask => self.ask(Asked::Radio(self.link.kind())).await,
            Do::Withdraw => self.ask(Asked::Free).await,
            Do::Connect => {
                let Some(radio) = self.radio.clone() else { return self.ask(Asked::Free).await };
                self.work = Some(Box::pin(async move { Outcome::Connected(talk::connect(&radio).await) }));
            }
            Do::Subscribe if self.work.is_some() => self.subscribe_next = true,
            Do::Subscribe => self.subscribe(),
            Do::Disconnect { forget } => {
                if forget {
                    self.ask(Asked::Forget).await;
                }
                self.leave().await;
            }
            Do::Failed(why) => {
                self.ask(Asked::Failed { hung: why.contains("does not answer") }).await;
                self.flow.health.fault(Count::Failures, 1, &why);
            }
            Do::Silent(span) => {
                self.flow.health.fault(Count::Silences, 1, &format_args!("no value for {} s", span.as_secs()));
            }
            Do::Lost => self.flow.health.fault(Count::Disconnects, 1, &"the link was lost"),
        }
    }

    fn subscribe(&mut self) {
        let Some(radio) = self.radio.clone() else { return };
        self.subscribe_next = false;
        self.flow.fresh.store(true, Relaxed);
        self.before = self.flow.values.load(Relaxed);
        let (plan, flow, flows) = (self.settings.plan.clone(), self.flow.clone(), self.flows.clone());
        let (keep, wall) = (self.keep.clone(), (self.context.wall)());
        let route = move |channel: Arc<str>, kept: bool| Route {
            flow: flow.clone(),
            channel,
            kept: kept.then(|| keep.clone()),
        };
        self.work = Some(Box::pin(async move {
            let linked = talk::subscribe(&radio, &plan, &flows, &route, wall).await;
            Outcome::Subscribed(linked.map(Box::new))
        }));
    }

    async fn done(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Connected(Ok(())) => {
                self.ask(Asked::Connected).await;
                self.happened(Happened::Linked).await;
                if self.subscribe_next {
                    self.subscribe();
                }
            }
            Outcome::Connected(Err(failure)) => self.happened(Happened::Failed(failure)).await,
            Outcome::Subscribed(Ok(linked)) => {
                let Linked { talk, heard, lacking, clock_checked, keeps_records } = *linked;
                self.tell_lacking(lacking);
                self.clock_checked = clock_checked;
                self.deliver(heard);
                self.talk = Some(Box::new(talk));
                let records = self.settings.plan.link.records.as_ref().filter(|_| keeps_records);
                let earlier = self.receipts.len();
                self.fetch = records.map(|spec| Fetch::begin(Instant::now(), spec, self.last_record, earlier));
                self.happened(Happened::Subscribed(self.before)).await;
                // The first may have come, and rung, before the last subscription was through.
                self.happened(Happened::Values(self.flow.values.load(Relaxed))).await;
            }
            Outcome::Subscribed(Err(failure)) => self.happened(Happened::Failed(failure)).await,
            Outcome::Talked { talk, heard, failed } => {
                let polled = heard.len() as u64;
                self.talk = Some(talk);
                self.deliver(heard);
                if polled > 0 {
                    let values = self.flow.values.fetch_add(polled, Relaxed) + polled;
                    self.happened(Happened::Values(values)).await;
                }
                match failed {
                    Some(failure) => self.happened(Happened::Failed(failure)).await,
                    None => self.rest_if_all_is_said().await,
                }
            }
        }
    }

    /// Polls, keep-alive writes and record requests that are due.
    fn start_talking(&mut self, now: Instant) {
        if self.work.is_some() || self.talk.is_none() {
            return;
        }
        let order = self.fetch.as_mut().and_then(|fetch| Some((fetch.control().clone(), fetch.take_write()?)));
        if order.is_none() && !self.talk.as_ref().is_some_and(|talk| talk.is_due(now)) {
            return;
        }
        let Some(mut talk) = self.talk.take() else { return };
        let flows = self.flows.clone();
        self.work = Some(Box::pin(async move {
            let mut heard = Vec::new();
            let failed = talk.say(now, order, &flows, &mut heard).await.err();
            Outcome::Talked { talk, heard, failed }
        }));
    }

    async fn rest_if_all_is_said(&mut self) {
        let again = self.talk.as_ref().and_then(|talk| talk.rest_after(Instant::now()));
        if let Some(again) = again {
            self.happened(Happened::Finished { again }).await;
        }
    }

    /// Leaves a meter whose records are fetched, or that gave up.
    async fn rest_if_all_is_fetched(&mut self) {
        match self.fetch.as_ref().and_then(Fetch::end) {
            None => return,
            Some(End::Complete(last)) => self.last_record = last.or(self.last_record),
            Some(End::Early(why)) => self.flow.health.fault(Count::Failures, 1, why),
        }
        self.fetch = None;
        self.happened(Happened::Finished { again: fetch::AGAIN }).await;
    }

    /// What was read: few values, and a place for each.
    fn deliver(&mut self, heard: Vec<Heard>) {
        for Heard { channel, bytes, at } in heard {
            self.flow.health.heard(at);
            let reading = self.flow.reading(Channel::Gatt(channel), bytes, at);
            let delivery = Delivery::of(reading).with_clock_checked(self.clock_checked);
            if self.flow.inlet.try_put(delivery).is_err() {
                self.flow.health.fault(Count::Dropped, 1, &"the way in is full");
            }
        }
    }

    /// An indication or a record: it waits for its place, and its receipt is waited for.
    fn take_kept(&mut self, reading: Reading) {
        let now = Instant::now();
        if let (Channel::Gatt(channel), Some(fetch)) = (&reading.channel, &mut self.fetch) {
            if fetch.is_control(channel) {
                return fetch.answered(now, &reading.bytes);
            }
            fetch.record(now, &reading.bytes);
        }
        let (receipt, durable) = Receipt::new(self.settings.device.clone(), RECEIPT_WINDOW);
        self.receipts.push_back(durable);
        let delivery = Delivery::of(reading).with_receipt(receipt).with_clock_checked(self.clock_checked);
        let (inlet, health) = (self.flow.inlet.clone(), self.flow.health.clone());
        self.delivering = Some(Box::pin(async move {
            if inlet.put(delivery).await.is_err() {
                health.count(Count::Dropped, 1);
            }
        }));
    }

    /// Ends the link, whatever its state. Values are heard until it is down.
    async fn leave(&mut self) {
        (self.work, self.talk, self.fetch, self.subscribe_next) = (None, None, None, false);
        if let Some(radio) = self.radio.take() {
            // It may be gone already; the session watches what BlueZ says of it.
            let _told_by_the_bus = timeout(LEAVE, radio.bus.disconnect(&radio.place)).await;
            self.flows.close(&radio.place);
        }
    }

    /// Said once for each device: its profile asks for more than it has.
    fn tell_lacking(&mut self, lacking: Vec<Arc<str>>) {
        let new: Vec<Arc<str>> = lacking.into_iter().filter(|name| self.lacking.insert(name.clone())).collect();
        if !new.is_empty() {
            tracing::info!(source = &*self.settings.device, "has no {}; the rest of its profile works", new.join(", "));
        }
    }

    async fn ask(&mut self, asked: Asked) {
        // Without a session there is no radio; it tells so when it comes back.
        let _no_session = self.asks.send((self.number, asked)).await;
    }

    fn tell_state(&self) {
        self.flow.health.set_in_reach(self.link.is_in_reach());
        match self.link.is_in_trouble() {
            true => self.flow.health.set_trouble(&self.link.words()),
            false => self.flow.health.set_state(&self.link.words()),
        }
    }
}

/// The end of a future that may not be there.
async fn of<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The oldest receipt: whether it was given.
async fn first_of(receipts: &mut VecDeque<oneshot::Receiver<()>>) -> bool {
    match receipts.front_mut() {
        Some(receipt) => receipt.await.is_ok(),
        None => std::future::pending().await,
    }
}
