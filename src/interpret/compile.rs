//! From a profile's tables to its flat steps, once, at load: every name is resolved and every contradiction refused here.

use std::sync::Arc;
use std::time::Duration;

use crate::reading::Element;

use super::bluetooth;
use super::compile_emit;
use super::compile_link;
use super::compile_row::Scope;
use super::error::Wrong;
use super::file::{ChannelTable, Format, FormatName, GetName, MatchTable, ProfileFile};
use super::link::Cut;
use super::profile::{Match, Profile};
use super::step::{Act, Channel, Layout, Step, TemplatePart};

/// The version of the profile language that this program reads.
const SCHEMA: u32 = 1;

/// A characteristic is polled so often, unless the profile says otherwise.
const POLL_EVERY: Duration = Duration::from_secs(60);

/// Twins are this far apart at most, unless the profile says otherwise.
const SAME_WITHIN: Duration = Duration::from_secs(4);

pub(super) fn profile(file: &ProfileFile) -> Result<Profile, Wrong> {
    if file.schema != SCHEMA {
        return Err(Wrong::new(format!("schema = {}", file.schema), format!("this program reads schema = {SCHEMA}")));
    }
    let id = file.id.get_ref();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
        let expected = "an id of small letters, digits, hyphens and dots, at most 64";
        return Err(Wrong::new(format!("id = {id:?}"), expected).at(file.id.span()));
    }
    let frame = match &file.frame {
        Some(table) => Some(compile_link::frame(table.get_ref()).map_err(|wrong| wrong.at(table.span()))?),
        None => None,
    };
    let mut profile = Profile {
        id: Arc::from(id.as_str()),
        version: file.version,
        key: Arc::from(format!("{id}/{}", file.version)),
        title: file.title.clone(),
        source: file.source.clone(),
        matches: matches(&file.r#match)?,
        link: compile_link::link(file.link.as_ref())?,
        frame,
        same_within: file.same_within.map_or(SAME_WITHIN, |span| span.0),
        identity_needs_clock: file.identity_needs_clock,
        context: Vec::new(),
        channels: Vec::new(),
    };
    if profile.matches.serial && profile.frame.is_none() {
        return Err(Wrong::new(
            "serial = true without a frame",
            "write how frames are found, as frame = { line = \"\\n\" }",
        ));
    }
    if let (false, Some(table)) = (profile.matches.serial, &file.frame) {
        let wrong = Wrong::new("a frame without serial = true", "only serial lines are cut into frames");
        return Err(wrong.at(table.span()));
    }
    if file.channel.is_empty() {
        return Err(Wrong::new("no [[channel]]", "write at least one"));
    }
    // Context first: any channel may name what another one remembers.
    for table in &file.channel {
        remember(table.get_ref(), &mut profile.context);
    }
    for table in &file.channel {
        let compiled = channel(table.get_ref(), file, &profile).map_err(|wrong| wrong.at(table.span()))?;
        if profile.channels.iter().any(|other| other.name == compiled.name) {
            let found = format!("two channels are called {:?}", compiled.name);
            return Err(Wrong::new(found, "one [[channel]] for each characteristic").at(table.span()));
        }
        profile.channels.push(compiled);
    }
    check_shared(file, &profile)?;
    Ok(profile)
}

/// Channels that make no event are context: their fields are remembered for the device.
fn is_context(table: &ChannelTable) -> bool {
    table.get == Some(GetName::ReadOnce) || table.emit.is_empty()
}

fn remember(table: &ChannelTable, context: &mut Vec<Arc<str>>) {
    if !is_context(table) {
        return;
    }
    let rows = table.fields.iter().chain(&table.objects);
    for name in rows.filter_map(|row| row.get_ref().name.as_deref()) {
        if !context.iter().any(|known| &**known == name) {
            context.push(name.into());
        }
    }
}

fn matches(table: &MatchTable) -> Result<Match, Wrong> {
    let element = match (&table.ble_service_data, &table.ble_manufacturer) {
        (Some(uuid), None) => Some(Element::ServiceData(bluetooth::named("ble_service_data", uuid)?.into())),
        (None, Some(id)) => {
            let number = u16::from_str_radix(id, 16).ok().filter(|_| id.len() == 4);
            let wrong =
                || Wrong::new(format!("ble_manufacturer = {id:?}"), "write four hexadecimal digits, as \"0157\"");
            Some(Element::Manufacturer(number.ok_or_else(wrong)?))
        }
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(Wrong::new("ble_service_data and ble_manufacturer", "write one of the two"));
        }
    };
    let any = element.is_some() || table.ble_service.is_some() || table.name.is_some() || table.serial || table.mqtt;
    if !any {
        return Err(Wrong::new(
            "an empty match",
            "write what claims a reading, as { ble_service = \"180d\" } or { serial = true }",
        ));
    }
    let service = table.ble_service.as_ref().map(|uuid| bluetooth::named("ble_service", uuid)).transpose()?;
    Ok(Match {
        ble_service: service.map(Into::into),
        element,
        name: table.name.as_deref().map(Arc::from),
        serial: table.serial,
        mqtt: table.mqtt,
    })
}

fn channel(table: &ChannelTable, file: &ProfileFile, profile: &Profile) -> Result<Channel, Wrong> {
    let name = bluetooth::channel(&table.name).ok_or_else(|| {
        let expected = "frame, advertisement, message or a characteristic: \"2a37\", 128 bits with hyphens, \"2a6e#2\" for the second";
        Wrong::new(format!("name = {:?}", table.name), expected)
    })?;
    if table.every.is_some() && table.get != Some(GetName::Poll) {
        return Err(Wrong::new(
            "every in a channel without get = \"poll\"",
            "only what is polled has a time between two reads",
        ));
    }
    let format = layout(table.format.as_ref())?;
    let mut scope = Scope::new(format != Layout::Binary, template_names(&format));
    let mut steps: Vec<Step> = Vec::new();
    for row in &table.fields {
        let step = scope.step(row.get_ref(), &table.objects).map_err(|wrong| wrong.at(row.span()))?;
        steps.push(step);
    }
    let recipes = steps.iter().filter(|step| matches!(step.act, Act::Decrypt(_))).count();
    if recipes > 1 {
        return Err(Wrong::new(format!("{recipes} rows of type decrypt"), "one, as the whole rest is encrypted"));
    }
    let reads_objects = steps.iter().any(|step| matches!(step.act, Act::Objects(_)));
    if !reads_objects && let Some(row) = table.objects.first() {
        return Err(Wrong::new("a table objects", "add a row { type = \"objects\" } to fields").at(row.span()));
    }
    let mut emits = Vec::new();
    for row in &table.emit {
        let emit = compile_emit::emit(row.get_ref(), &table.name, &scope, &profile.context);
        emits.push(emit.map_err(|wrong| wrong.at(row.span()))?);
    }
    let now = table.now.as_deref().map(|name| compile_emit::time("now", name, &scope)).transpose()?;
    if now.is_some() && matches!(name.as_str(), "message" | "advertisement") {
        let expected = "a characteristic or a frame: a message may have waited for hours on its way";
        return Err(Wrong::new(format!("now in a channel \"{name}\""), expected));
    }
    let named = |names: Option<&toml::Spanned<Vec<String>>>| {
        let names = names.map_or(&[][..], |names| names.get_ref().as_slice());
        names.iter().filter_map(|name| scope.slot(name)).collect()
    };
    let is_frame = table.name == "frame";
    let framing = profile.frame.as_ref().filter(|_| is_frame);
    let remembered = if is_context(table) {
        let place = |name: &Arc<str>| profile.context.iter().position(|known| known == name);
        let slots = scope.slots.iter().enumerate();
        slots.filter_map(|(slot, name)| Some((slot as u16, place(name)? as u16))).collect()
    } else {
        Vec::new()
    };
    Ok(Channel {
        name: name.into(),
        get: table.get,
        every: table.every.map_or(POLL_EVERY, |span| span.0),
        format,
        steps,
        emits,
        trailer: framing
            .and_then(|frame| frame.checksum)
            .map_or(0, |checksum| if checksum.at < 0 { usize::try_from(-checksum.at).unwrap_or(0) } else { 0 }),
        strict_end: !framing.is_some_and(|frame| matches!(frame.cut, Cut::Fixed { .. })),
        now,
        same_if: named(file.same_if.as_ref()),
        identity: named(file.identity.as_ref()),
        stored: table.get == Some(GetName::Indicate) || profile.link.records.is_some(),
        remembered,
        good_examples: table.examples.iter().filter(|row| row.get_ref().refuse.is_none()).count(),
        refused_examples: table.examples.iter().filter(|row| row.get_ref().refuse.is_some()).count(),
        slots: scope.slots,
    })
}

/// Fields that the whole profile names must be read in some channel.
fn check_shared(file: &ProfileFile, profile: &Profile) -> Result<(), Wrong> {
    for (key, names) in [("same_if", &file.same_if), ("identity", &file.identity)] {
        let Some(names) = names else { continue };
        for name in names.get_ref() {
            if !profile.channels.iter().any(|channel| channel.slots.iter().any(|slot| **slot == **name)) {
                let wrong =
                    Wrong::new(format!("{key} names the field \"{name}\""), "no channel has a field of that name");
                return Err(wrong.at(names.span()));
            }
        }
    }
    Ok(())
}

fn layout(format: Option<&Format>) -> Result<Layout, Wrong> {
    Ok(match format {
        None | Some(Format::Named(FormatName::Binary)) => Layout::Binary,
        Some(Format::Named(FormatName::Json)) => Layout::Json,
        Some(Format::Pairs(table)) => {
            if table.pairs.is_empty() || table.equals.is_empty() || table.pairs == table.equals {
                let expected = "two different texts, as { pairs = \",\", equals = \":\" }";
                return Err(Wrong::new(format!("pairs = {:?}, equals = {:?}", table.pairs, table.equals), expected));
            }
            Layout::Pairs { between: table.pairs.clone(), equals: table.equals.clone() }
        }
        Some(Format::Template(table)) => Layout::Template(template(&table.template)?),
    })
}

fn template(text: &str) -> Result<Vec<TemplatePart>, Wrong> {
    let wrong = |why: &str| Wrong::new(format!("template = {text:?}"), why.to_owned());
    // Messages are read with one blank for each run of them.
    let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut parts = Vec::new();
    let mut rest = squeezed.as_str();
    while let Some((literal, after)) = rest.split_once('{') {
        if literal.is_empty() && matches!(parts.last(), Some(TemplatePart::Capture(_))) {
            return Err(wrong("two names stand side by side; put a text between them"));
        }
        let (name, tail) = after.split_once('}').ok_or_else(|| wrong("a { without }"))?;
        if name.is_empty() || name.contains('{') {
            return Err(wrong("write a name between { and }"));
        }
        if !literal.is_empty() {
            parts.push(TemplatePart::Literal(literal.to_owned()));
        }
        parts.push(TemplatePart::Capture(name.to_owned()));
        rest = tail;
    }
    if !rest.is_empty() {
        parts.push(TemplatePart::Literal(rest.to_owned()));
    }
    if !parts.iter().any(|part| matches!(part, TemplatePart::Capture(_))) {
        return Err(wrong("write {name} where a value stands"));
    }
    Ok(parts)
}

/// The names in a template, or nothing for other formats.
fn template_names(format: &Layout) -> Option<Vec<String>> {
    let Layout::Template(parts) = format else { return None };
    let names = parts.iter().filter_map(|part| match part {
        TemplatePart::Capture(name) => Some(name.clone()),
        TemplatePart::Literal(_) => None,
    });
    Some(names.collect())
}
