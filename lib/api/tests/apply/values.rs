//! Walks over values: what they name, how they differ, merge, and what is left without parts.

use keelson_api::apply::compare::compare;
use keelson_api::apply::merge::merge;
use keelson_api::apply::reconcile::reconcile;
use keelson_api::apply::remove::{extract, extract_with_keys, remove};
use keelson_api::apply::set::Set;
use keelson_api::apply::validate::validate;
use keelson_api::apply::view::{View, same};
use keelson_api::apply::{codec, field_set};
use keelson_api::doc::{Value, value_to_json};

use crate::schemas::{check, set, shape, value};

fn sets(what: &str, got: &Set, wanted: &Set) -> Result<(), String> {
    if got == wanted {
        return Ok(());
    }
    Err(format!("{what}: got {}\n    not {}", codec::to_json(got), codec::to_json(wanted)))
}

fn values(what: &str, got: &Value, wanted: &Value) -> Result<(), String> {
    if same(View::Value(got), View::Value(wanted)) {
        return Ok(());
    }
    Err(format!("{what}: got {}\n    not {}", value_to_json(got), value_to_json(wanted)))
}

#[test]
fn objects_name_their_fields() {
    check("set", 50, |case| {
        let got = field_set(View::Value(&value(&case["object"])), shape(case)).map_err(|e| e.to_string())?;
        sets("fields", &got, &set(&case["fields"]))
    });
}

#[test]
fn objects_differ() {
    check("diff", 110, |case| {
        let [old, new] = ["old", "new"].map(|name| value(&case[name]));
        let got = compare(View::Value(&old), View::Value(&new), shape(case)).map_err(|e| e.to_string())?;
        sets("removed", &got.removed, &set(&case["removed"]))?;
        sets("modified", &got.modified, &set(&case["modified"]))?;
        sets("added", &got.added, &set(&case["added"]))
    });
}

#[test]
fn configurations_are_laid_over_objects() {
    check("lay", 90, |case| {
        let [live, config] = ["live", "config"].map(|name| value(&case[name]));
        let got = merge(View::Value(&live), View::Value(&config), shape(case)).map_err(|e| e.to_string())?;
        values("merged", &got, &value(&case["merged"]))
    });
}

#[test]
fn objects_fit_their_schema_or_not() {
    check("valid", 85, |case| {
        let got = validate(View::Value(&value(&case["object"])), shape(case), case["twice"] == true);
        match (got, case["fits"] == true) {
            (Ok(()), true) | (Err(_), false) => Ok(()),
            (Ok(()), false) => Err(format!("{} fits", case["object"])),
            (Err(error), true) => Err(error.to_string()),
        }
    });
}

#[test]
fn parts_are_removed_and_extracted() {
    check("remove", 55, |case| {
        let (object, fields) = (value(&case["object"]), set(&case["fields"]));
        let view = View::Value(&object);
        if let Some(wanted) = case.get("without") {
            values("without", &remove(view, &fields, shape(case)), &value(wanted))?;
        }
        if let Some(wanted) = case.get("only") {
            values("only", &extract(view, &fields, shape(case)), &value(wanted))?;
        }
        Ok(())
    });
    check("extract-keys", 5, |case| {
        let got = extract_with_keys(View::Value(&value(&case["object"])), &set(&case["fields"]), shape(case));
        values("only", &got, &value(&case["only"]))
    });
    check("reversible", 15, |case| {
        let [object, part] = ["object", "part"].map(|name| value(&case[name]));
        let merged =
            merge(View::Value(&object), View::Value(&part), shape(case)).map_err(|e| e.to_string())?;
        let fields = field_set(View::Value(&part), shape(case)).map_err(|e| e.to_string())?.leaves();
        values("the part", &extract(View::Value(&merged), &fields, shape(case)), &part)
    });
}

#[test]
fn sets_follow_their_schema() {
    check("reconcile", 7, |case| {
        let got = reconcile(&set(&case["fields"]), shape(case));
        match (got, case["now"].is_null()) {
            (None, true) => Ok(()),
            (Some(got), false) => sets("now", &got, &set(&case["now"])),
            (got, _) => Err(format!("got {got:?}")),
        }
    });
}
