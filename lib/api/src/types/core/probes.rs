//! Probes and lifecycle hooks.

use crate::doc::Struct;
use crate::f::core_v1 as c;
use crate::field_errors::{ErrorList, FieldPath};
use crate::names;
use crate::types::core::container::{PodFacts, port_number, port_or_name};
use crate::types::meta::NEGATIVE;
use crate::types::walk::{present, structs};

/// The three probes of a container.
pub fn validate_probes(
    container: &Struct,
    facts: &PodFacts<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    for field in [c::container::LIVENESS_PROBE, c::container::READINESS_PROBE, c::container::STARTUP_PROBE] {
        let Some(probe) = container.child(field) else { continue };
        let at = path.child(field.def().json);
        validate_probe(probe, facts, &at, errors);
        let readiness = field == c::container::READINESS_PROBE;
        if readiness {
            if let Some(seconds) = probe.int(c::probe::TERMINATION_GRACE_PERIOD_SECONDS) {
                let below = at.child("terminationGracePeriodSeconds");
                errors.invalid(&below, seconds, "must not be set for readinessProbes");
            }
        } else {
            let threshold = probe.int(c::probe::SUCCESS_THRESHOLD).unwrap_or(0);
            if threshold != 1 {
                errors.invalid(&at.child("successThreshold"), threshold, "must be 1");
            }
        }
    }
}

fn validate_probe(probe: &Struct, facts: &PodFacts<'_>, path: &FieldPath<'_>, errors: &mut ErrorList) {
    let handler = Handler {
        exec: probe.child(c::probe::EXEC),
        http: probe.child(c::probe::HTTP_GET),
        tcp: probe.child(c::probe::TCP_SOCKET),
        grpc: probe.child(c::probe::GRPC),
        sleep: None,
    };
    handler.validate(facts.grace, path, errors);
    for field in [
        c::probe::INITIAL_DELAY_SECONDS,
        c::probe::TIMEOUT_SECONDS,
        c::probe::PERIOD_SECONDS,
        c::probe::SUCCESS_THRESHOLD,
        c::probe::FAILURE_THRESHOLD,
    ] {
        if let Some(value) = probe.int(field).filter(|value| *value < 0) {
            errors.invalid(&path.child(field.def().json), value, NEGATIVE);
        }
    }
    if let Some(seconds) =
        probe.int(c::probe::TERMINATION_GRACE_PERIOD_SECONDS).filter(|seconds| *seconds <= 0)
    {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

struct Handler<'a> {
    exec: Option<&'a Struct>,
    http: Option<&'a Struct>,
    tcp: Option<&'a Struct>,
    grpc: Option<&'a Struct>,
    sleep: Option<&'a Struct>,
}

impl Handler<'_> {
    fn validate(&self, grace: Option<i64>, path: &FieldPath<'_>, errors: &mut ErrorList) {
        let mut count = 0;
        let kinds = [
            ("exec", self.exec),
            ("httpGet", self.http),
            ("tcpSocket", self.tcp),
            ("grpc", self.grpc),
            ("sleep", self.sleep),
        ];
        for (name, action) in kinds.into_iter().filter_map(|(name, action)| Some((name, action?))) {
            let at = path.child(name);
            count += 1;
            if count > 1 {
                errors.forbidden(&at, "may not specify more than 1 handler type");
                continue;
            }
            match name {
                "exec" => {
                    if action.list(c::exec_action::COMMAND).is_empty() {
                        errors.required(&at.child("command"), "");
                    }
                }
                "httpGet" => http_get(action, &at, errors),
                "tcpSocket" => {
                    port_or_name(action.get(c::tcp_socket_action::PORT), &at.child("port"), errors)
                }
                "grpc" => {
                    port_number(action.int(c::grpc_action::PORT).unwrap_or(0), &at.child("port"), errors)
                }
                _ => {
                    let seconds = action.int(c::sleep_action::SECONDS).unwrap_or(0);
                    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                        let text = format!(
                            "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                        );
                        errors.invalid(&at, seconds, text);
                    }
                }
            }
        }
        if count == 0 {
            errors.required(path, "must specify a handler type");
        }
    }
}

fn http_get(get: &Struct, path: &FieldPath<'_>, errors: &mut ErrorList) {
    if get.str(c::http_get_action::PATH).is_empty() {
        errors.required(&path.child("path"), "");
    }
    port_or_name(get.get(c::http_get_action::PORT), &path.child("port"), errors);
    let scheme = get.str(c::http_get_action::SCHEME);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for (_, header) in structs(get, c::http_get_action::HTTP_HEADERS) {
        let name = header.str(c::http_header::NAME);
        errors.invalid_each(&path.child("httpHeaders"), name, names::http_header_name(name));
    }
}

/// `lifecycle`.
pub fn validate_lifecycle(
    lifecycle: &Struct,
    facts: &PodFacts<'_>,
    path: &FieldPath<'_>,
    errors: &mut ErrorList,
) {
    for field in [c::lifecycle::POST_START, c::lifecycle::PRE_STOP] {
        let Some(hook) = lifecycle.child(field) else { continue };
        let handler = Handler {
            exec: hook.child(c::lifecycle_handler::EXEC),
            http: hook.child(c::lifecycle_handler::HTTP_GET),
            tcp: hook.child(c::lifecycle_handler::TCP_SOCKET),
            grpc: None,
            sleep: hook.child(c::lifecycle_handler::SLEEP),
        };
        handler.validate(facts.grace, &path.child(field.def().json), errors);
    }
    if present(lifecycle, c::lifecycle::STOP_SIGNAL) && facts.os.is_none() {
        errors
            .forbidden(&path.child("stopSignal"), "may not be set for containers with empty `spec.os.name`");
    }
}
