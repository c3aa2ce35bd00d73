//! Label selectors, compiled once and matched often.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::meta::Labels;

/// Something with labels.
pub trait LabelLookup {
    fn label(&self, key: &str) -> Option<&str>;
}

impl LabelLookup for Labels {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl LabelLookup for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

/// How a requirement compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
    Exists,
    DoesNotExist,
}

/// One requirement on one key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: Box<str>,
    pub op: Op,
}

impl Requirement {
    fn matches(&self, labels: &impl LabelLookup) -> bool {
        let value = labels.label(&self.key);
        match &self.op {
            Op::In(values) => value.is_some_and(|v| values.iter().any(|x| &**x == v)),
            Op::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| &**x != v)),
            Op::Exists => value.is_some(),
            Op::DoesNotExist => value.is_none(),
        }
    }
}

/// A compiled selector. `Nothing` is what a missing selector means, an empty list of requirements matches everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector {
    Nothing,
    All(Box<[Requirement]>),
}

/// A selector that the API server should have refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
    #[error("operator {0} of key {1:?} needs at least one value")]
    NoValues(&'static str, String),
}

impl Selector {
    /// The selector that matches everything.
    pub fn everything() -> Self {
        Selector::All(Box::default())
    }

    /// All pairs must be equal; an empty map matches everything.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        Selector::All(
            map.iter()
                .map(|(key, value)| Requirement {
                    key: key.as_str().into(),
                    op: Op::In(Box::new([value.as_str().into()])),
                })
                .collect(),
        )
    }

    /// Compiles a LabelSelector; `None` matches nothing.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Selector::Nothing) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement {
                key: key.as_str().into(),
                op: Op::In(Box::new([value.as_str().into()])),
            });
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = || -> Box<[Box<str>]> {
                expression.values.iter().flatten().map(|v| v.as_str().into()).collect()
            };
            let some_values = |op| match values() {
                values if values.is_empty() => Err(SelectorError::NoValues(op, expression.key.clone())),
                values => Ok(values),
            };
            let op = match expression.operator.as_str() {
                "In" => Op::In(some_values("In")?),
                "NotIn" => Op::NotIn(some_values("NotIn")?),
                "Exists" => Op::Exists,
                "DoesNotExist" => Op::DoesNotExist,
                other => return Err(SelectorError::Operator(other.to_owned())),
            };
            requirements.push(Requirement { key: expression.key.as_str().into(), op });
        }
        Ok(Selector::All(requirements.into()))
    }

    /// Whether `labels` are selected.
    pub fn matches(&self, labels: &impl LabelLookup) -> bool {
        match self {
            Selector::Nothing => false,
            Selector::All(requirements) => requirements.iter().all(|r| r.matches(labels)),
        }
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        matches!(self, Selector::All(requirements) if requirements.is_empty())
    }

    /// The same selector with `key` required to have `value`.
    pub fn and_equal(&self, key: &str, value: &str) -> Self {
        match self {
            Selector::Nothing => Selector::Nothing,
            Selector::All(requirements) => {
                let mut all = requirements.to_vec();
                all.push(Requirement { key: key.into(), op: Op::In(Box::new([value.into()])) });
                Selector::All(all.into())
            }
        }
    }

    /// The same selector with `key` required not to have `value`.
    pub fn and_not_equal(&self, key: &str, value: &str) -> Self {
        match self {
            Selector::Nothing => Selector::Nothing,
            Selector::All(requirements) => {
                let mut all = requirements.to_vec();
                all.push(Requirement { key: key.into(), op: Op::NotIn(Box::new([value.into()])) });
                Selector::All(all.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: serde_json::Value) -> Selector {
        Selector::from_label_selector(Some(&serde_json::from_value(json).unwrap())).unwrap()
    }

    #[test]
    fn requirements_follow_upstream() {
        let labels = Labels::new([("app", "web"), ("tier", "front")]);
        let check = |json, expected| assert_eq!(selector(json).matches(&labels), expected);
        check(serde_json::json!({}), true);
        check(serde_json::json!({"matchLabels": {"app": "web"}}), true);
        check(serde_json::json!({"matchLabels": {"app": "db"}}), false);
        check(
            serde_json::json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["a"]}]}),
            true,
        );
        check(
            serde_json::json!({"matchExpressions": [{"key": "x", "operator": "In", "values": ["a"]}]}),
            false,
        );
        check(serde_json::json!({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}), true);
        check(serde_json::json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), false);
        assert!(!Selector::from_label_selector(None).unwrap().matches(&labels));
    }

    #[test]
    fn an_unknown_operator_is_an_error() {
        let bad = serde_json::from_value(
            serde_json::json!({"matchExpressions": [{"key": "x", "operator": "Near"}]}),
        )
        .unwrap();
        assert!(Selector::from_label_selector(Some(&bad)).is_err());
    }
}
