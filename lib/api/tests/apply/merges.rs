//! Whole stories of applies and updates by several managers, in several versions.

use std::borrow::Cow;
use std::collections::BTreeMap;

use keelson_api::apply::codec;
use keelson_api::apply::managers::{ManagerId, Managers};
use keelson_api::apply::merge::merge;
use keelson_api::apply::remove::extract;
use keelson_api::apply::set::{Filter, Set};
use keelson_api::apply::shape::Shape;
use keelson_api::apply::update::{ConvertError, Typed, UpdateError, Updater, Versions};
use keelson_api::apply::validate::validate;
use keelson_api::apply::view::{View, same};
use keelson_api::doc::{Map, Value, value_to_json};
use serde_json::Value as Json;

use crate::schemas::{check, filter, path, shape_of, value};

/// How a story's versions relate.
enum Converter {
    /// All versions are the same.
    Same,
    /// Below the first field, names repeat one letter as often as the version says.
    Repeating,
    /// Names end in their version.
    Renaming,
    /// One field has another name in v1, and must be there.
    Reliant,
}

struct World<'a> {
    converter: Converter,
    case: &'a Json,
    schema: std::cell::RefCell<Option<String>>,
}

impl World<'_> {
    fn shape(&self, version: &str) -> Shape<'static> {
        let ty = if self.case["type"].is_object() { &self.case["type"][version] } else { &self.case["type"] };
        match (&self.case["type"], ty) {
            // A version no step names: types are named after versions.
            (Json::Object(_), Json::Null) => {
                shape_of(self.schema.borrow().as_deref(), &Json::from(format!("@{version}")))
            }
            _ => shape_of(self.schema.borrow().as_deref(), ty),
        }
    }
}

fn repeated(value: &Value, times: usize) -> Value {
    match value {
        Value::Map(map) => {
            let pairs = map.iter().map(|(key, value)| (key[..1].repeat(times), repeated(value, times)));
            Value::Map(pairs.collect())
        }
        _ => Value::Null,
    }
}

fn renamed(value: &Value, from: &str, to: &str) -> Value {
    match value {
        Value::Map(map) => Value::Map(
            map.iter()
                .map(|(key, value)| {
                    let key = match key.strip_suffix(from) {
                        Some(stem) => format!("{stem}{to}"),
                        None => key.to_owned(),
                    };
                    (key, renamed(value, from, to))
                })
                .collect(),
        ),
        Value::List(items) => Value::List(items.iter().map(|item| renamed(item, from, to)).collect()),
        other => other.clone(),
    }
}

impl Versions for World<'_> {
    fn convert<'t>(
        &'t self,
        object: &'t Typed<'t>,
        version: &str,
    ) -> Result<Option<Typed<'t>>, ConvertError> {
        let value = match (&self.converter, &*object.value) {
            (Converter::Same, value) => Cow::Borrowed(value),
            (Converter::Repeating, value) => {
                let Some(times) = version.strip_prefix('v').and_then(|n| n.parse().ok()) else {
                    return Ok(None);
                };
                match value {
                    Value::Map(map) => Cow::Owned(Value::Map(
                        map.iter().take(1).map(|(key, value)| (key, repeated(value, times))).collect::<Map>(),
                    )),
                    other => Cow::Borrowed(other),
                }
            }
            (Converter::Renaming, value) => Cow::Owned(renamed(value, &object.version, version)),
            (Converter::Reliant, value) if version == object.version => Cow::Borrowed(value),
            (Converter::Reliant, value) => {
                let (bar, plain) = ("required_field_bar", "field_foo_rely_on_bar");
                match (version, value) {
                    ("v1", Value::Map(map)) if !map.contains_key(bar) => {
                        return Err(ConvertError("missing required field bar".into()));
                    }
                    ("v1", value) => Cow::Owned(renamed(value, bar, plain)),
                    ("v2", value) => Cow::Owned(renamed(value, plain, bar)),
                    _ => return Ok(None),
                }
            }
        };
        Ok(Some(Typed { value, shape: self.shape(version), version: version.into() }))
    }
}

struct Story<'a> {
    world: &'a World<'a>,
    live: Value,
    version: String,
    managers: Managers,
    filters: BTreeMap<String, Filter>,
}

fn id(name: &str) -> ManagerId {
    ManagerId { manager: name.into(), ..ManagerId::default() }
}

impl Story<'_> {
    /// One step; `Err` is a failure the story did not ask for.
    fn step(&mut self, step: &Json) -> Result<(), String> {
        if step["do"] == "schema" {
            *self.world.schema.borrow_mut() = step["schema"].as_str().map(str::to_owned);
            return validate(View::Value(&self.live), self.world.shape(&self.version), false)
                .map_err(|e| e.to_string());
        }
        let (version, me) = (step["in"].as_str().unwrap(), id(step["by"].as_str().unwrap()));
        let shape = self.world.shape(version);
        let mut object = value(&step["object"]);
        let update = step["do"] == "update";
        validate(View::Value(&object), shape, update).map_err(|e| e.to_string())?;
        let at = if self.version.is_empty() { version } else { &self.version };
        let before =
            Typed { value: Cow::Borrowed(&self.live), shape: self.world.shape(at), version: at.into() };
        let live =
            self.world.convert(&before, version).map_err(|e| e.to_string())?.ok_or("no such version")?;
        if step["do"] == "extract"
            && let Some(owned) = self.managers.get(&me)
        {
            let part = extract(live.view(), &owned.set.leaves(), shape);
            object = merge(View::Value(&part), View::Value(&object), shape).map_err(|e| e.to_string())?;
        } else if step["do"] == "extract" && !self.version.is_empty() {
            let part = extract(live.view(), &Set::new(), shape);
            object = merge(View::Value(&part), View::Value(&object), shape).map_err(|e| e.to_string())?;
        }
        let filters = &self.filters;
        let filter = |version: &str| filters.get(version);
        let updater = Updater { versions: self.world, filter: &filter };
        let config = Typed { value: Cow::Owned(object), shape, version: version.into() };
        let managers = self.managers.clone();
        if update {
            let managers = updater.update(&live, &config, managers, &me).map_err(|e| e.to_string())?;
            let new = config.value.into_owned();
            (self.managers, self.live, self.version) = (managers, new, version.to_owned());
            return Ok(());
        }
        let force = step["do"] != "apply";
        let done = updater.apply(&live, &config, managers, &me, force);
        let found = match &done {
            Err(UpdateError::Conflicts(found)) => found.clone(),
            _ => Vec::new(),
        };
        if let Some(wanted) = step["conflicts"].as_array() {
            let got: Vec<_> = found.iter().map(|c| (c.manager.manager.to_string(), c.path.clone())).collect();
            let wanted: Vec<_> =
                wanted.iter().map(|c| (c[0].as_str().unwrap().to_owned(), path(&c[1]))).collect();
            let within = |a: &[_], b: &[_]| a.iter().all(|one| b.contains(one));
            if !within(&got, &wanted) || !within(&wanted, &got) {
                return Err(format!("conflicts {got:?}\n    not {wanted:?}"));
            }
            if !found.is_empty() {
                let value = live.value.into_owned();
                (self.live, self.version) = (value, version.to_owned());
                return Ok(());
            }
        }
        let (new, managers) = done.map_err(|error| format!("{error}: {found:?}"))?;
        let new = new.unwrap_or_else(|| live.value.into_owned());
        (self.managers, self.live, self.version) = (managers, new, version.to_owned());
        Ok(())
    }

    fn run(&mut self, case: &Json) -> Result<(), String> {
        for (at, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            self.step(step).map_err(|why| format!("step {at}: {why}"))?;
        }
        if let Some(wanted) = case.get("live") {
            let version = case["in"].as_str().unwrap();
            let typed = Typed {
                value: Cow::Borrowed(&self.live),
                shape: self.world.shape(&self.version),
                version: self.version.as_str().into(),
            };
            let live = self.world.convert(&typed, version).map_err(|e| e.to_string())?.ok_or("no version")?;
            let wanted = value(wanted);
            if !same(live.view(), View::Value(&wanted)) {
                return Err(format!(
                    "live {}\n    not {}",
                    value_to_json(&live.value),
                    value_to_json(&wanted)
                ));
            }
        }
        if let Some(wanted) = case["owners"].as_object() {
            self.check_owners(wanted)?;
        }
        match self.managers.iter().find(|(_, owned)| owned.set.is_empty()) {
            Some((id, _)) => Err(format!("{} owns nothing", id.manager)),
            None => Ok(()),
        }
    }

    fn check_owners(&self, wanted: &serde_json::Map<String, Json>) -> Result<(), String> {
        let text = |version: &str, set: &Set| format!("{version} {}", codec::to_json(set));
        let got: BTreeMap<String, String> = self
            .managers
            .iter()
            .map(|(id, owned)| (id.manager.to_string(), text(&owned.api_version, &owned.set)))
            .collect();
        let wanted: BTreeMap<String, String> = wanted
            .iter()
            .map(|(name, owned)| {
                let set = codec::parse(owned[1].as_str().unwrap().as_bytes()).unwrap();
                (name.clone(), (owned[0].as_str().unwrap(), set))
            })
            .filter(|(_, (_, set))| !set.is_empty())
            .map(|(name, (version, set))| (name, text(version, &set)))
            .collect();
        if got == wanted { Ok(()) } else { Err(format!("owners {got:#?}\n    not {wanted:#?}")) }
    }
}

#[test]
fn stories_of_applies_and_updates() {
    check("merge", 310, |case| {
        let converter = match case["converter"].as_str() {
            None => Converter::Same,
            Some("repeatingConverter") => Converter::Repeating,
            Some("renamingConverter") => Converter::Renaming,
            Some("reliantFieldsConverter") => Converter::Reliant,
            Some(other) => panic!("unknown converter {other}"),
        };
        let schema = std::cell::RefCell::new(case["schema"].as_str().map(str::to_owned));
        let world = World { converter, case, schema };
        let filters = case["filter"].as_object().into_iter().flatten();
        let mut story = Story {
            world: &world,
            live: Value::Null,
            version: String::new(),
            managers: Managers::new(),
            filters: filters.map(|(version, json)| (version.clone(), filter(json))).collect(),
        };
        match (story.run(case), case["fails"] == true) {
            (Ok(()), true) => Err("the story was to fail".into()),
            (Err(_), true) => Ok(()),
            (done, _) => done,
        }
    });
}
