//! Pairing with one sensor: an agent of ours asks the person at the terminal what BlueZ asks. The bond's keys stay with
//! BlueZ; nothing secret is kept here.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::time::Duration;

use dbus::arg::{PropMap, RefArg};
use dbus::channel::MatchingReceiver;
use dbus::message::MatchRule;
use dbus::nonblock::stdintf::org_freedesktop_dbus::Properties;
use dbus::nonblock::{Proxy, SyncConnection};
use dbus::{MethodErr, Path};
use dbus_crossroads::{Context, Crossroads};
use dbus_tokio::connection;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// How long any call but `Pair` may take.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// How long a sensor that BlueZ does not know is looked for.
const SEARCH_DEADLINE: Duration = Duration::from_secs(30);

/// How long pairing may take, with a person who must find and type a number.
const PAIR_DEADLINE: Duration = Duration::from_secs(60);

/// How often the search looks.
const TURN: Duration = Duration::from_millis(500);

/// How long a person may think about one question; BlueZ gives up by itself after a minute.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

const SERVICE: &str = "org.bluez";
const DEVICE: &str = "org.bluez.Device1";
const ADAPTER: &str = "org.bluez.Adapter1";
const AGENT: &str = "/org/biogate/agent";

/// What the person is told or asked. A question whose answer is dropped is a no.
#[derive(Debug)]
pub enum Question {
    /// To be typed on the sensor, or compared with what it shows.
    Show(String),
    /// The number that the sensor shows.
    Passkey(oneshot::Sender<u32>),
    /// The PIN that is printed on the sensor.
    Pin(oneshot::Sender<String>),
    /// Whether the sensor shows this number too.
    Same(u32, oneshot::Sender<bool>),
    /// Nothing is asked any more.
    Cancelled,
}

/// How it ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paired {
    /// It is paired now.
    Now,
    /// It was paired before.
    Before,
}

/// Why there is no bond. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PairingError {
    /// No system bus.
    #[error("the system's D-Bus does not answer ({0}); is dbus running, and may this program reach its socket?")]
    NoBus(String),
    /// No bluetoothd.
    #[error("bluetoothd does not run; `systemctl start bluetooth`, and `apt install bluez` where it is not installed")]
    NoBluetooth,
    /// No adapter.
    #[error("there is no Bluetooth adapter, or it is blocked; see `rfkill list`")]
    NoAdapter,
    /// The bus or BlueZ refuses us.
    #[error("this user may not use Bluetooth; run it as root or as a member of the group bluetooth")]
    NoPermission,
    /// Nobody of this address.
    #[error("{0} was not heard in {1} s; wake the sensor (wear it, press its button), bring it near and try again")]
    NotFound(String, u64),
    /// The sensor or the person said no.
    #[error("the sensor refused; hold its pairing button until it blinks, check the number, and try again")]
    Refused,
    /// It went away.
    #[error("the sensor broke off ({0}); bring it near, hold its pairing button and try again")]
    Lost(String),
    /// Nobody answered in time.
    #[error("no answer in {} s; hold the sensor's pairing button and try again", .0.as_secs())]
    TooLate(Duration),
    /// What BlueZ says that has no words of ours.
    #[error("{what}: {said}")]
    Other {
        /// What was tried.
        what: &'static str,
        /// What BlueZ said.
        said: String,
    },
}

type Objects = HashMap<Path<'static>, HashMap<String, PropMap>>;

/// Pairs with the sensor of this address and trusts it. On these adapters, or on any where none is named.
pub async fn pair(
    address: &str,
    adapters: &[String],
    questions: mpsc::Sender<Question>,
) -> Result<Paired, PairingError> {
    let (resource, bus) = connection::new_system_sync().map_err(|why| PairingError::NoBus(text_of(&why)))?;
    let driver = tokio::spawn(resource);
    let agent = Agent { bus: bus.clone(), registered: false };
    let paired = pair_on(&bus, agent, address, adapters, questions).await;
    driver.abort();
    paired
}

async fn pair_on(
    bus: &Arc<SyncConnection>,
    mut agent: Agent,
    address: &str,
    adapters: &[String],
    questions: mpsc::Sender<Question>,
) -> Result<Paired, PairingError> {
    let device = find(bus, address, adapters).await?;
    let proxy = at(bus, device);
    let is_paired: bool =
        proxy.get(DEVICE, "Paired").await.map_err(|why| error_of("asking whether it is paired", &why))?;
    if !is_paired {
        agent.register(questions).await?;
        let paired = ask_to_pair(&proxy).await;
        agent.unregister().await;
        paired?;
    }
    // Without trust BlueZ asks an agent at each connection, and then none of ours is there.
    proxy.set(DEVICE, "Trusted", true).await.map_err(|why| error_of("trusting it", &why))?;
    Ok(if is_paired { Paired::Before } else { Paired::Now })
}

async fn ask_to_pair(device: &Proxy<'_, Arc<SyncConnection>>) -> Result<(), PairingError> {
    // The library's own deadline is for all calls of a proxy; this one may take longer.
    let patient = Proxy::new(SERVICE, device.path.clone(), PAIR_DEADLINE, device.connection.clone());
    let paired: Result<(), dbus::Error> = patient.method_call(DEVICE, "Pair", ()).await;
    match paired {
        Ok(()) => Ok(()),
        // Somebody else paired it meanwhile.
        Err(why) if why.name() == Some("org.bluez.Error.AlreadyExists") => Ok(()),
        Err(why) => {
            // Without this BlueZ goes on trying after we are gone.
            let _nothing_to_cancel: Result<(), dbus::Error> = device.method_call(DEVICE, "CancelPairing", ()).await;
            Err(error_of("pairing", &why))
        }
    }
}

/// The device's object; searched for where BlueZ does not know it yet.
async fn find(bus: &Arc<SyncConnection>, address: &str, adapters: &[String]) -> Result<Path<'static>, PairingError> {
    let objects = objects(bus).await?;
    let usable = usable_adapters(&objects, adapters);
    if usable.is_empty() {
        return Err(PairingError::NoAdapter);
    }
    if let Some(path) = device_of(&objects, &usable, address) {
        return Ok(path);
    }
    let mut refused = None;
    let mut searching = Vec::new();
    for adapter in &usable {
        let started: Result<(), dbus::Error> =
            at(bus, adapter.clone()).method_call(ADAPTER, "StartDiscovery", ()).await;
        match started {
            Ok(()) => searching.push(adapter.clone()),
            Err(why) => refused = Some(error_of("looking for it", &why)),
        }
    }
    if let (Some(why), true) = (refused, searching.is_empty()) {
        return Err(why);
    }
    let end = Instant::now() + SEARCH_DEADLINE;
    let found = loop {
        match objects_or_gone(bus, &usable, address).await {
            Ok(None) if Instant::now() < end => sleep(TURN).await,
            Ok(None) => break Err(PairingError::NotFound(address.to_owned(), SEARCH_DEADLINE.as_secs())),
            Ok(Some(path)) => break Ok(path),
            Err(why) => break Err(why),
        }
    };
    for adapter in searching {
        let _ended_by_itself: Result<(), dbus::Error> =
            at(bus, adapter).method_call(ADAPTER, "StopDiscovery", ()).await;
    }
    found
}

async fn objects_or_gone(
    bus: &Arc<SyncConnection>,
    adapters: &[Path<'static>],
    address: &str,
) -> Result<Option<Path<'static>>, PairingError> {
    Ok(device_of(&objects(bus).await?, adapters, address))
}

async fn objects(bus: &Arc<SyncConnection>) -> Result<Objects, PairingError> {
    let root = at(bus, Path::from("/"));
    let all: Result<(Objects,), dbus::Error> =
        root.method_call("org.freedesktop.DBus.ObjectManager", "GetManagedObjects", ()).await;
    all.map(|(objects,)| objects).map_err(|why| error_of("asking BlueZ what it knows", &why))
}

/// Adapters by name (`hci0`) or address; all where none is named.
fn usable_adapters(objects: &Objects, wanted: &[String]) -> Vec<Path<'static>> {
    let is_wanted = |path: &Path<'static>, properties: &PropMap| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_called = |wanted: &String| wanted == name || is_address(properties, wanted);
        wanted.is_empty() || wanted.iter().any(is_called)
    };
    let with = objects.iter().filter_map(|(path, interfaces)| Some((path, interfaces.get(ADAPTER)?)));
    let mut usable: Vec<_> = with.filter(|(path, it)| is_wanted(path, it)).map(|(path, _)| path.clone()).collect();
    usable.sort();
    usable
}

/// The device of this address on one of these adapters; one that is paired comes before one that is only heard.
fn device_of(objects: &Objects, adapters: &[Path<'static>], address: &str) -> Option<Path<'static>> {
    let with = objects.iter().filter_map(|(path, interfaces)| Some((path, interfaces.get(DEVICE)?)));
    let here = |path: &Path<'static>| adapters.iter().any(|adapter| path.starts_with(&format!("{adapter}/")));
    let mut found: Vec<_> = with.filter(|(path, it)| here(path) && is_address(it, address)).collect();
    let is_paired = |it: &PropMap| it.get("Paired").and_then(|paired| paired.0.as_i64()) == Some(1);
    found.sort_by_key(|(path, it)| (!is_paired(it), (*path).clone()));
    found.first().map(|(path, _)| (*path).clone())
}

fn is_address(properties: &PropMap, address: &str) -> bool {
    let told = properties.get("Address").and_then(|address| address.0.as_str());
    told.is_some_and(|told| told.eq_ignore_ascii_case(address))
}

fn at<'a>(bus: &Arc<SyncConnection>, path: Path<'a>) -> Proxy<'a, Arc<SyncConnection>> {
    Proxy::new(SERVICE, path, CALL_DEADLINE, bus.clone())
}

/// Our agent on the bus, as long as it is registered.
struct Agent {
    bus: Arc<SyncConnection>,
    registered: bool,
}

impl Agent {
    async fn register(&mut self, questions: mpsc::Sender<Question>) -> Result<(), PairingError> {
        let mut objects = Crossroads::new();
        let spawn = Box::new(|work| drop(tokio::spawn(work)));
        objects.set_async_support(Some((self.bus.clone(), spawn)));
        export(&mut objects, questions);
        let answer = Box::new(move |message, bus: &SyncConnection| {
            let _no_method_call = objects.handle_message(message, bus).is_err();
            true
        });
        self.bus.start_receive(MatchRule::new_method_call(), answer);
        let manager = at(&self.bus, Path::from("/org/bluez"));
        let path = Path::from(AGENT);
        let registered: Result<(), dbus::Error> =
            manager.method_call("org.bluez.AgentManager1", "RegisterAgent", (path, "KeyboardDisplay")).await;
        registered.map_err(|why| error_of("registering as the one who is asked", &why))?;
        self.registered = true;
        Ok(())
    }

    async fn unregister(&mut self) {
        if std::mem::take(&mut self.registered) {
            let manager = at(&self.bus, Path::from("/org/bluez"));
            // BlueZ drops an agent whose connection ends, so a failure here is no harm.
            let _dropped_with_the_connection: Result<(), dbus::Error> =
                manager.method_call("org.bluez.AgentManager1", "UnregisterAgent", (Path::from(AGENT),)).await;
        }
    }
}

/// `org.bluez.Agent1`: what BlueZ asks becomes a question to the person.
fn export(objects: &mut Crossroads, questions: mpsc::Sender<Question>) {
    let agent = objects.register("org.bluez.Agent1", |agent| {
        let to = questions.clone();
        agent.method_with_cr_async(
            "RequestPinCode",
            ("device",),
            ("pincode",),
            move |context, _, _: (Path<'static>,)| reply(context, ask(to.clone(), Question::Pin), |pin| (pin,)),
        );
        let to = questions.clone();
        agent.method_with_cr_async(
            "RequestPasskey",
            ("device",),
            ("passkey",),
            move |context, _, _: (Path<'static>,)| {
                reply(context, ask(to.clone(), Question::Passkey), |passkey| (passkey,))
            },
        );
        let to = questions.clone();
        let names = ("device", "passkey");
        agent.method_with_cr_async(
            "RequestConfirmation",
            names,
            (),
            move |context, _, (_, passkey): (Path<'static>, u32)| {
                let asked = ask(to.clone(), move |answer| Question::Same(passkey, answer));
                let agreed = async move { asked.await.filter(|same| *same) };
                reply(context, agreed, |_same| ())
            },
        );
        let to = questions.clone();
        let names = ("device", "pincode");
        agent.method("DisplayPinCode", names, (), move |_, (), (_, pin): (Path<'static>, String)| {
            // What a device says ends on a terminal.
            let pin: String = pin.chars().filter(char::is_ascii_graphic).take(16).collect();
            show(&to, pin)
        });
        let to = questions.clone();
        let names = ("device", "passkey", "entered");
        agent.method("DisplayPasskey", names, (), move |_, (), (_, passkey, entered): (Path<'static>, u32, u16)| {
            // It comes again for each digit that is typed.
            if entered == 0 { show(&to, format!("{passkey:06}")) } else { Ok(()) }
        });
        // The person named this very device: it may pair, and offer what it has.
        agent.method("RequestAuthorization", ("device",), (), |_, (), _: (Path<'static>,)| Ok(()));
        agent.method("AuthorizeService", ("device", "uuid"), (), |_, (), _: (Path<'static>, String)| Ok(()));
        let to = questions.clone();
        agent.method("Cancel", (), (), move |_, (), (): ()| {
            let _nobody_listens = to.try_send(Question::Cancelled);
            Ok(())
        });
        agent.method("Release", (), (), |_, (), (): ()| Ok(()));
    });
    objects.insert(AGENT, &[agent], ());
}

fn show(to: &mpsc::Sender<Question>, text: String) -> Result<(), MethodErr> {
    to.try_send(Question::Show(text)).map_err(|_| refusal())
}

/// Puts a question and waits for its answer; `None` is a no.
fn ask<T>(
    to: mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> impl Future<Output = Option<T>> {
    let (answer, answered) = oneshot::channel();
    let asked = to.try_send(question(answer)).is_ok();
    async move {
        match asked {
            true => timeout(ANSWER_DEADLINE, answered).await.ok()?.ok(),
            false => None,
        }
    }
}

/// Sends the answer to BlueZ, or a refusal.
async fn reply<T: Send, OA: dbus::arg::AppendAll>(
    mut context: Context,
    answer: impl Future<Output = Option<T>> + Send,
    shaped: impl FnOnce(T) -> OA + Send,
) -> PhantomData<OA> {
    context.reply(answer.await.map(shaped).ok_or_else(refusal))
}

fn refusal() -> MethodErr {
    MethodErr::from(("org.bluez.Error.Rejected", "refused by the person at the hub"))
}

fn error_of(what: &'static str, why: &dbus::Error) -> PairingError {
    let name = why.name().unwrap_or_default();
    let lost = || PairingError::Lost(text_of(why));
    match name {
        "org.freedesktop.DBus.Error.ServiceUnknown" | "org.freedesktop.DBus.Error.NameHasNoOwner" => {
            PairingError::NoBluetooth
        }
        "org.freedesktop.DBus.Error.AccessDenied"
        | "org.bluez.Error.NotAuthorized"
        | "org.bluez.Error.NotPermitted" => PairingError::NoPermission,
        "org.bluez.Error.NotReady" => PairingError::NoAdapter,
        "org.bluez.Error.AuthenticationFailed"
        | "org.bluez.Error.AuthenticationCanceled"
        | "org.bluez.Error.AuthenticationRejected"
        | "org.bluez.Error.Rejected" => PairingError::Refused,
        "org.bluez.Error.AuthenticationTimeout"
        | "org.freedesktop.DBus.Error.NoReply"
        | "org.freedesktop.DBus.Error.Timeout" => {
            PairingError::TooLate(if what == "pairing" { PAIR_DEADLINE } else { CALL_DEADLINE })
        }
        "org.bluez.Error.ConnectionAttemptFailed" | "org.freedesktop.DBus.Error.UnknownObject" => lost(),
        _ => PairingError::Other { what, said: text_of(why) },
    }
}

fn text_of(why: &dbus::Error) -> String {
    why.message().or(why.name()).unwrap_or("no reason given").to_owned()
}
