//! A certificate authority: its own certificate and key, and what it issues.

use crate::keys::private_key;
use jiff::Timestamp;
use rand::RngCore;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::prelude::{
    FromDer, GeneralName, ParsedExtension, X509Certificate, X509CertificationRequest,
};

/// Life of an authority's certificate.
pub(crate) const CA_LIFE: Duration = Duration::from_secs(30 * 365 * 86_400);
/// Life of a certificate that we issue, where nobody has chosen another (upstream's).
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Certificates are valid from this long before they are made: other machines' clocks may be behind. One that lives short
/// begins at most this part of its life early, so that a third of its life is not over when it is made.
const BACKDATE: (i64, u64) = (3600, 8);
/// No machine of ours is older than this (2026-01-01T00:00:00Z). A clock that shows less is not set yet, and
/// certificates made meanwhile must hold before and after it is corrected.
const CLOCK_FLOOR: i64 = 1_767_225_600;

/// Why a certificate could not be read or issued.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("a key pair cannot be generated or read")]
    Key(#[source] rcgen::Error),
    #[error("the certificate for {subject} cannot be issued")]
    Issue { subject: String, source: rcgen::Error },
    #[error("{name:?} is no DNS name")]
    DnsName { name: String, source: rcgen::Error },
    #[error("the certificate is not valid PEM or DER")]
    Parse,
    #[error("the certificate request is not valid PEM or DER")]
    ParseRequest,
    #[error("the certificate request is not signed by its own key")]
    RequestSignature,
    #[error("a subject with {0} organizations cannot be issued (at most two)")]
    Organizations(usize),
    #[error("names of other kinds than DNS names and addresses cannot be issued")]
    Names,
    #[error("the authority's own certificate has expired")]
    AuthorityExpired,
    #[error("the certificate request asks for subject fields other than common name and organization")]
    Subject,
    #[error("the certificate does not belong to its key")]
    KeyMismatch,
}

/// What a certificate may be used for (names as `CertificateSigningRequest.spec.usages`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    DigitalSignature,
    KeyEncipherment,
    ClientAuth,
    ServerAuth,
}

impl Usage {
    /// From upstream's name (`digital signature`, `key encipherment`, `client auth`, `server auth`).
    pub fn from_name(name: &str) -> Option<Usage> {
        Some(match name {
            "digital signature" => Usage::DigitalSignature,
            "key encipherment" => Usage::KeyEncipherment,
            "client auth" => Usage::ClientAuth,
            "server auth" => Usage::ServerAuth,
            _ => return None,
        })
    }
}

/// Subject, names and usages of a certificate to be issued.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usages: Vec<Usage>,
}

impl Profile {
    /// A client certificate: user and groups.
    pub fn client(user: &str, groups: &[&str]) -> Profile {
        Profile {
            common_name: user.to_owned(),
            organizations: groups.iter().map(|g| (*g).to_owned()).collect(),
            usages: vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ClientAuth],
            ..Profile::default()
        }
    }

    /// A serving certificate.
    pub fn server(name: &str, dns_names: Vec<String>, addresses: Vec<IpAddr>) -> Profile {
        Profile {
            common_name: name.to_owned(),
            dns_names,
            addresses,
            usages: vec![Usage::DigitalSignature, Usage::KeyEncipherment, Usage::ServerAuth],
            ..Profile::default()
        }
    }

    fn alt_names(&self) -> Result<Vec<SanType>, CertError> {
        let mut names = Vec::new();
        for name in &self.dns_names {
            let value = name
                .as_str()
                .try_into()
                .map_err(|source| CertError::DnsName { name: name.clone(), source })?;
            names.push(SanType::DnsName(value));
        }
        names.extend(self.addresses.iter().map(|a| SanType::IpAddress(*a)));
        Ok(names)
    }

    fn params(&self, now: Timestamp, life: Duration) -> Result<CertificateParams, CertError> {
        let mut params = base_params(&self.common_name, now, life);
        params.distinguished_name = subject(&self.common_name, &self.organizations)?;
        params.subject_alt_names = self.alt_names()?;
        for usage in &self.usages {
            match usage {
                Usage::DigitalSignature => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
                Usage::KeyEncipherment => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
                Usage::ClientAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
                Usage::ServerAuth => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            }
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

fn subject(common_name: &str, organizations: &[String]) -> Result<DistinguishedName, CertError> {
    let mut name = DistinguishedName::new();
    // The certificate library keys a subject's parts by their type; the second organization gets in by its OID.
    let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    if organizations.len() > kinds.len() {
        return Err(CertError::Organizations(organizations.len()));
    }
    for (kind, organization) in kinds.into_iter().zip(organizations) {
        name.push(kind, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    Ok(name)
}

fn base_params(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = now.as_second();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let early = i64::try_from(life.as_secs() / BACKDATE.1).unwrap_or(BACKDATE.0).min(BACKDATE.0);
    let from = u64::try_from(now.min(CLOCK_FLOOR) - early).unwrap_or(0);
    // A back-dated start costs nothing: what counts for renewal is the end.
    let from = if now > CLOCK_FLOOR { u64::try_from(now - early).unwrap_or(from) } else { from };
    let to = u64::try_from(now.max(CLOCK_FLOOR)).unwrap_or(0) + life.as_secs();
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(to);
    let mut serial = [0u8; 16];
    rand::rng().fill_bytes(&mut serial);
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// An authority, ready to issue.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
    cert_pem: String,
}

impl Authority {
    /// A new key's PEM (ECDSA P-256).
    pub(crate) fn generate_key() -> Result<String, CertError> {
        KeyPair::generate().map(|k| k.serialize_pem()).map_err(CertError::Key)
    }

    /// A self-signed certificate (PEM) for an authority's key.
    pub(crate) fn self_sign(name: &str, key_pem: &str, now: Timestamp) -> Result<String, CertError> {
        let key = KeyPair::from_pem(key_pem).map_err(CertError::Key)?;
        let mut params = base_params(name, now, CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // Upstream's clients look for the name in the certificate of an authority, too.
        if let Ok(dns) = name.try_into() {
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        let cert = params
            .self_signed(&key)
            .map_err(|source| CertError::Issue { subject: name.to_owned(), source })?;
        Ok(cert.pem())
    }

    /// From the PEM texts of certificate and key.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Authority, CertError> {
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|_| CertError::Parse)?;
        if !belongs(&cert, key_pem)? {
            return Err(CertError::KeyMismatch);
        }
        let key = KeyPair::from_pem(key_pem).map_err(CertError::Key)?;
        let issuer = Issuer::from_ca_cert_der(&cert, key).map_err(CertError::Key)?;
        Ok(Authority { issuer, cert, cert_pem: cert_pem.to_owned() })
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// The authority's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.cert_pem
    }

    /// `sha256:<hex>` over the public key, what `kubeadm join --discovery-token-ca-cert-hash` takes.
    pub fn hash(&self) -> Result<String, CertError> {
        public_key_hash(&self.cert)
    }

    /// Issues a certificate with a new key; both as PEM.
    pub fn issue(
        &self,
        profile: &Profile,
        now: Timestamp,
        life: Duration,
    ) -> Result<(String, String), CertError> {
        let key = KeyPair::generate().map_err(CertError::Key)?;
        let cert = profile
            .params(now, life)?
            .signed_by(&key, &self.issuer)
            .map_err(|source| CertError::Issue { subject: profile.common_name.clone(), source })?;
        Ok((cert.pem(), key.serialize_pem()))
    }

    /// Signs a request's public key and subject with the usages given. Whether the requester may have this
    /// subject is for the caller to decide from [`parse_csr`]; nothing else of the request is taken over.
    pub fn sign_csr(
        &self,
        csr: &CsrInfo,
        usages: &[Usage],
        now: Timestamp,
        life: Duration,
    ) -> Result<String, CertError> {
        if csr.other_subject > 0 {
            return Err(CertError::Subject);
        }
        if csr.other_names > 0 {
            return Err(CertError::Names);
        }
        let profile = Profile {
            common_name: csr.common_name.clone(),
            organizations: csr.organizations.clone(),
            dns_names: csr.dns_names.clone(),
            addresses: csr.addresses.clone(),
            usages: usages.to_vec(),
        };
        let key = SubjectPublicKeyInfo::from_der(&csr.public_key).map_err(CertError::Key)?;
        let mut params = profile.params(now, life)?;
        let (_, ca) = X509Certificate::from_der(&self.cert).map_err(|_| CertError::Parse)?;
        let end = ca.validity().not_after.timestamp();
        if now.as_second() >= end {
            return Err(CertError::AuthorityExpired);
        }
        let end = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(end).unwrap_or(0));
        params.not_after = params.not_after.min(end);
        let cert = params
            .signed_by(&key, &self.issuer)
            .map_err(|source| CertError::Issue { subject: csr.common_name.clone(), source })?;
        Ok(cert.pem())
    }
}

/// What a certificate request says, its own signature checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrInfo {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Names of other kinds (e-mail, URI …), which no signer of ours accepts.
    pub other_names: usize,
    /// Parts of the subject other than common name and organization; such a request is not signed.
    pub other_subject: usize,
    /// DER of the SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

/// When a certificate (the first of a PEM text) begins and ends to be valid.
pub fn validity(pem: &str) -> Result<(Timestamp, Timestamp), CertError> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertError::Parse)?;
    let (_, cert) = X509Certificate::from_der(&der).map_err(|_| CertError::Parse)?;
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|_| CertError::Parse)
    };
    Ok((at(cert.validity().not_before)?, at(cert.validity().not_after)?))
}

/// Whether a certificate's PEM text comes from `authority` and belongs to the key's PEM text.
pub fn issued_by(cert_pem: &str, key_pem: &str, authority: &CertificateDer<'_>) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(cert_pem.as_bytes()) else { return false };
    let Ok((_, cert)) = X509Certificate::from_der(&der) else { return false };
    let Ok((_, ca)) = X509Certificate::from_der(authority) else { return false };
    cert.verify_signature(Some(ca.public_key())).is_ok() && belongs(&der, key_pem).unwrap_or(false)
}

/// `sha256:<hex>` over a certificate's public key, what `--discovery-token-ca-cert-hash` takes.
pub fn public_key_hash(cert: &CertificateDer<'_>) -> Result<String, CertError> {
    let (_, cert) = X509Certificate::from_der(cert).map_err(|_| CertError::Parse)?;
    let digest = Sha256::digest(cert.public_key().raw);
    Ok(format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>()))
}

/// A certificate that vouches for itself, and its key: for a server that must listen before it has one that others
/// believe.
pub fn self_signed(profile: &Profile, now: Timestamp, life: Duration) -> Result<(String, String), CertError> {
    let key = KeyPair::generate().map_err(CertError::Key)?;
    let mut params = profile.params(now, life)?;
    params.use_authority_key_identifier_extension = false;
    let cert = params
        .self_signed(&key)
        .map_err(|source| CertError::Issue { subject: profile.common_name.clone(), source })?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// A new key and a request for a certificate with this profile's subject and names; both as PEM (request, key).
pub fn make_request(profile: &Profile) -> Result<(String, String), CertError> {
    let key = KeyPair::generate().map_err(CertError::Key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&profile.common_name, &profile.organizations)?;
    params.subject_alt_names = profile.alt_names()?;
    let subject = || profile.common_name.clone();
    let request =
        params.serialize_request(&key).map_err(|source| CertError::Issue { subject: subject(), source })?;
    let pem = request.pem().map_err(|source| CertError::Issue { subject: subject(), source })?;
    Ok((pem, key.serialize_pem()))
}

/// Reads a `CERTIFICATE REQUEST` PEM text and verifies that it is signed with its own key.
pub fn parse_csr(pem: &str) -> Result<CsrInfo, CertError> {
    let der =
        CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertError::ParseRequest)?;
    let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| CertError::ParseRequest)?;
    if !rest.is_empty() {
        return Err(CertError::ParseRequest);
    }
    csr.verify_signature().map_err(|_| CertError::RequestSignature)?;
    let subject = &csr.certification_request_info.subject;
    let mut info = CsrInfo {
        common_name: String::new(),
        organizations: Vec::new(),
        dns_names: Vec::new(),
        addresses: Vec::new(),
        other_names: 0,
        other_subject: 0,
        public_key: csr.certification_request_info.subject_pki.raw.to_vec(),
    };
    for attribute in subject.iter_attributes() {
        let value = attribute.as_str().map_err(|_| CertError::Subject)?.to_owned();
        if *attribute.attr_type() == x509_parser::oid_registry::OID_X509_COMMON_NAME {
            info.common_name = value;
        } else if *attribute.attr_type() == x509_parser::oid_registry::OID_X509_ORGANIZATION_NAME {
            info.organizations.push(value);
        } else {
            info.other_subject += 1;
        }
    }
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
        for name in &names.general_names {
            match name {
                GeneralName::DNSName(dns) => info.dns_names.push((*dns).to_owned()),
                GeneralName::IPAddress(bytes) => match ip(bytes) {
                    Some(address) => info.addresses.push(address),
                    None => info.other_names += 1,
                },
                _ => info.other_names += 1,
            }
        }
    }
    Ok(info)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// Whether a certificate's public key is that of the private key.
pub(crate) fn belongs(cert: &[u8], key_pem: &str) -> Result<bool, CertError> {
    let (_, cert) = X509Certificate::from_der(cert).map_err(|_| CertError::Parse)?;
    if private_key(key_pem).is_none() {
        return Ok(false);
    }
    let key = KeyPair::from_pem(key_pem).map_err(CertError::Key)?;
    Ok(cert.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

/// Whether an issued certificate still says what it should, comes from this authority's key, and has more than
/// two thirds of its life left.
pub(crate) fn still_good(
    cert_pem: &str,
    key_pem: &str,
    ca: &Authority,
    want: &Profile,
    now: Timestamp,
) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(cert_pem.as_bytes()) else { return false };
    let Ok((_, cert)) = X509Certificate::from_der(&der) else { return false };
    let Ok((_, ca_cert)) = X509Certificate::from_der(ca.certificate()) else { return false };
    if !belongs(&der, key_pem).unwrap_or(false)
        || cert.verify_signature(Some(ca_cert.public_key())).is_err()
        || cert.issuer() != ca_cert.subject()
    {
        return false;
    }
    let (from, to) = (cert.validity().not_before.timestamp(), cert.validity().not_after.timestamp());
    let now = now.as_second();
    if now >= CLOCK_FLOOR && (now < from || now > to - (to - from) / 3 * 2) {
        return false;
    }
    says(&cert, want)
}

fn says(cert: &X509Certificate<'_>, want: &Profile) -> bool {
    let names: Vec<_> = cert.subject().iter_common_name().filter_map(|a| a.as_str().ok()).collect();
    let groups: Vec<_> = cert.subject().iter_organization().filter_map(|a| a.as_str().ok()).collect();
    let mut dns = Vec::new();
    let mut addresses = Vec::new();
    if let Ok(Some(san)) = cert.subject_alternative_name() {
        for name in &san.value.general_names {
            match name {
                GeneralName::DNSName(n) => dns.push((*n).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(ip(bytes)),
                _ => return false,
            }
        }
    }
    names == [want.common_name.as_str()]
        && groups == want.organizations
        && dns == want.dns_names
        && addresses == want.addresses
}
