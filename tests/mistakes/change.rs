//! Changes of a JSON object: `path=json` sets, `path=` removes, `&&` joins. A path is names and [indices], as field paths
//! are written; an index one behind the end appends.

use serde_json::Value;

/// Applies all changes of a row.
pub fn apply(object: &mut Value, changes: &str) -> Result<(), String> {
    for change in changes.split(" && ") {
        let (path, value) = change.split_once('=').ok_or_else(|| format!("no = in {change:?}"))?;
        let steps = steps(path.trim());
        if value.trim().is_empty() {
            remove(object, &steps)?;
        } else {
            *reach(object, &steps)? =
                serde_json::from_str(value).map_err(|error| format!("{value}: {error}"))?;
        }
    }
    Ok(())
}

enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

fn steps(path: &str) -> Vec<Step<'_>> {
    path.split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().map_or(Step::Name(part), Step::Index))
        .collect()
}

fn reach<'a>(at: &'a mut Value, steps: &[Step<'_>]) -> Result<&'a mut Value, String> {
    let Some((step, rest)) = steps.split_first() else { return Ok(at) };
    match step {
        Step::Name(name) => {
            if at.is_null() {
                *at = Value::Object(serde_json::Map::new());
            }
            let map = at.as_object_mut().ok_or_else(|| format!("{name}: not an object"))?;
            reach(map.entry(*name).or_insert(Value::Null), rest)
        }
        Step::Index(index) => {
            let list = at.as_array_mut().ok_or_else(|| format!("[{index}]: not a list"))?;
            if list.len() == *index {
                list.push(Value::Null);
            }
            reach(list.get_mut(*index).ok_or_else(|| format!("[{index}]: out of range"))?, rest)
        }
    }
}

fn remove(object: &mut Value, steps: &[Step<'_>]) -> Result<(), String> {
    let (last, above) = steps.split_last().ok_or("an empty path")?;
    match (reach(object, above)?, last) {
        (Value::Object(map), Step::Name(name)) => {
            map.remove(*name).map(drop).ok_or_else(|| format!("no {name}"))
        }
        _ => Err("only an object's fields are removed".to_owned()),
    }
}

#[test]
fn changes_set_append_and_remove() {
    let mut object = serde_json::json!({"a": [{"b": 1}], "c": 2});
    apply(&mut object, r#"a[0].b=[] && a[1]={"d":"="} && e.f=true && c="#).unwrap();
    assert_eq!(object, serde_json::json!({"a": [{"b": []}, {"d": "="}], "e": {"f": true}}));
    assert!(apply(&mut object, "a[7]=1").is_err() && apply(&mut object, "nosuch=").is_err());
}
