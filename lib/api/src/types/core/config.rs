//! ConfigMaps, Secrets and ServiceAccounts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::doc::{Doc, Map, Struct, Value};
use crate::f::core_v1 as c;
use crate::field_errors::{BadValue, ErrorList, FieldPath};
use crate::names;
use crate::schema::Field;
use crate::types::meta::immutable;
use crate::types::walk::{default_str, same};
use crate::types::{GenerationRule, SelectableFields, Strategy, columns};

/// Most bytes of a ConfigMap's or Secret's values together.
const MAX_SIZE: usize = 1024 * 1024;
const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

/// ConfigMaps.
pub static CONFIG_MAP: Strategy = Strategy {
    defaults: |_| {},
    validate_create: |doc, _, errors| config_map(doc, errors),
    validate_update: |new, old, _, errors| {
        let fields = [c::config_map::DATA, c::config_map::BINARY_DATA];
        frozen(new, old, c::config_map::IMMUTABLE, &fields, errors);
        config_map(new, errors);
    },
    columns: &columns::core::CONFIG_MAP,
    ..Strategy::BASE
};

/// Secrets.
pub static SECRET: Strategy = Strategy {
    defaults: |doc| {
        let Some(root) = doc.root_mut() else { return };
        default_str(root, c::secret::TYPE, "Opaque");
        merge_string_data(root);
    },
    prepare_update: |new, old, _| {
        // As upstream: a PUT without a type keeps the old one.
        if new.str(&[c::secret::TYPE]).is_empty() {
            let kind = old.str(&[c::secret::TYPE]).to_owned();
            new.set(&[c::secret::TYPE], kind);
        }
    },
    validate_create: |doc, _, errors| secret(doc, errors),
    validate_update: |new, old, _, errors| {
        let path = [c::secret::TYPE];
        immutable(new.get(&path), old.get(&path), &FieldPath::new("type"), errors);
        frozen(new, old, c::secret::IMMUTABLE, &[c::secret::DATA], errors);
        secret(new, errors);
    },
    warnings: |new, _, _| secret_warnings(new),
    selectable: &["metadata.name", "metadata.namespace", "type"],
    selectable_fields: |doc| SelectableFields::from_iter([("type", doc.str(&[c::secret::TYPE]).into())]),
    columns: &columns::core::SECRET,
    ..Strategy::BASE
};

/// ComponentStatuses, of which nothing is stored.
pub static COMPONENT_STATUS: Strategy = Strategy {
    generation: GenerationRule::None,
    columns: &columns::core::COMPONENT_STATUS,
    ..Strategy::BASE
};

/// ServiceAccounts.
pub static SERVICE_ACCOUNT: Strategy = Strategy {
    generation: GenerationRule::None,
    warnings: |new, old, _| {
        const MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
        let asked = |doc: &Doc| doc.meta().annotation(MOUNTABLE).is_some();
        if !asked(new) || old.is_some_and(asked) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to \
             mounted secrets"
        )]
    },
    columns: &columns::core::SERVICE_ACCOUNT,
    ..Strategy::BASE
};

/// `stringData` is only ever written: its values go to `data`.
fn merge_string_data(root: &mut Struct) {
    let Some(Value::Map(plain)) = root.remove(c::secret::STRING_DATA) else { return };
    if plain.is_empty() {
        return;
    }
    if let Some(data) = root.entry_index(c::secret::DATA.index).as_map_mut() {
        for (key, value) in plain.str_pairs() {
            data.insert(key, STANDARD.encode(value));
        }
    }
}

fn frozen(new: &Doc, old: &Doc, flag: Field, fields: &[Field], errors: &mut ErrorList) {
    if old.bool(&[flag]) != Some(true) {
        return;
    }
    if new.bool(&[flag]) != Some(true) {
        errors.forbidden(&FieldPath::new("immutable"), IMMUTABLE_SET);
    }
    for field in fields {
        if !same(new.get(&[*field]), old.get(&[*field])) {
            errors.forbidden(&FieldPath::new(field.def().json), IMMUTABLE_SET);
        }
    }
}

/// Bytes that a base64 text stands for.
fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

fn config_map(doc: &Doc, errors: &mut ErrorList) {
    let Some(root) = doc.root() else { return };
    let binary = root.map(c::config_map::BINARY_DATA);
    let mut total = 0;
    let at = FieldPath::new("data");
    for (key, value) in root.map(c::config_map::DATA).into_iter().flat_map(Map::str_pairs) {
        errors.invalid_each(&at.key(key), key, names::config_map_key(key));
        if binary.is_some_and(|binary| binary.contains_key(key)) {
            errors.invalid(&at.key(key), key, "duplicate of key present in binaryData");
        }
        total += value.len();
    }
    let at = FieldPath::new("binaryData");
    for (key, value) in binary.into_iter().flat_map(Map::str_pairs) {
        errors.invalid_each(&at.key(key), key, names::config_map_key(key));
        total += decoded_len(value);
    }
    if total > MAX_SIZE {
        errors.too_long(&FieldPath::new("[]"), MAX_SIZE);
    }
}

fn secret(doc: &Doc, errors: &mut ErrorList) {
    let Some(root) = doc.root() else { return };
    let at = FieldPath::new("data");
    let data = root.map(c::secret::DATA);
    let mut total = 0;
    for (key, value) in data.into_iter().flat_map(Map::str_pairs) {
        errors.invalid_each(&at.key(key), key, names::config_map_key(key));
        total += decoded_len(value);
    }
    if total > MAX_SIZE {
        errors.too_long(&at, MAX_SIZE);
    }
    let has = |key: &str| data.is_some_and(|data| data.contains_key(key));
    let need = |key: &str, errors: &mut ErrorList| {
        if !has(key) {
            errors.required(&at.key(key), "");
        }
    };
    match root.str(c::secret::TYPE) {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if doc.meta().annotation(NAME).unwrap_or("").is_empty() {
                let metadata = FieldPath::new("metadata");
                errors.required(&metadata.child("annotations").key(NAME), "");
            }
        }
        "kubernetes.io/dockercfg" => docker_config(data, ".dockercfg", &at, errors),
        "kubernetes.io/dockerconfigjson" => docker_config(data, ".dockerconfigjson", &at, errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.required(&at.key("username"), "");
            errors.required(&at.key("password"), "");
        }
        "kubernetes.io/ssh-auth" => {
            let key = data.and_then(|data| data.get_str("ssh-privatekey")).unwrap_or("");
            if key.is_empty() {
                errors.required(&at.key("ssh-privatekey"), "");
            }
        }
        "kubernetes.io/tls" => {
            need("tls.crt", errors);
            need("tls.key", errors);
        }
        _ => {}
    }
}

/// What Go's decoder says where a text is no JSON object; other mistakes are in our decoder's words.
fn go_json_error(bytes: &[u8], error: &serde_json::Error) -> String {
    let first = bytes.iter().copied().find(|b| !b.is_ascii_whitespace());
    match first {
        _ if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Some(b) if !matches!(b, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
            format!("invalid character '{}' looking for beginning of value", char::from(b))
        }
        _ => error.to_string(),
    }
}

/// What a TLS secret's pair lacks.
fn secret_warnings(doc: &Doc) -> Vec<String> {
    let Some(root) = doc.root().filter(|root| root.str(c::secret::TYPE) == "kubernetes.io/tls") else {
        return Vec::new();
    };
    let has_pem = |key: &str| {
        let text = root.map(c::secret::DATA).and_then(|data| data.get_str(key)).unwrap_or("");
        STANDARD.decode(text).is_ok_and(|bytes| bytes.windows(11).any(|part| part == b"-----BEGIN "))
    };
    for (key, what) in [("tls.crt", "certificate"), ("tls.key", "key")] {
        if !has_pem(key) {
            return vec![format!("tls: failed to find any PEM data in {what} input")];
        }
    }
    Vec::new()
}

fn docker_config(data: Option<&Map>, key: &str, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let Some(text) = data.and_then(|data| data.get_str(key)) else {
        errors.required(&path.key(key), "");
        return;
    };
    let parsed = STANDARD.decode(text).map_err(|e| e.to_string()).and_then(|bytes| {
        serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes)
            .map_err(|e| go_json_error(&bytes, &e))
    });
    if let Err(why) = parsed {
        errors.invalid(&path.key(key), BadValue::from("<secret contents redacted>"), why);
    }
}
