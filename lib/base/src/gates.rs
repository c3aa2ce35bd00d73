//! Feature gates with their stage and default at v1.35 (names and values as upstream's `versioned_feature_list.yaml`).
//!
//! A gate is known by its row's index; whoever asks gets the configured set ([`Gates`]) handed down, there is no global.

/// How settled a feature is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Alpha,
    Beta,
    Ga,
    Deprecated,
}

/// One feature gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    pub name: &'static str,
    pub stage: Stage,
    pub default: bool,
    /// It cannot be set to anything but its default.
    pub locked: bool,
}

const fn gate(name: &'static str, stage: Stage, default: bool, locked: bool) -> Gate {
    Gate { name, stage, default, locked }
}

/// The gates in force: the defaults and what the configuration changes.
#[derive(Clone, Debug)]
pub struct Gates {
    enabled: Vec<bool>,
}

/// Why a gate could not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateError {
    /// No gate has this name.
    Unknown(String),
    /// The gate is locked to its default.
    Locked(&'static str, bool),
}

impl std::fmt::Display for GateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            GateError::Unknown(name) => write!(f, "no feature gate is named {name:?}"),
            GateError::Locked(name, value) => write!(f, "feature gate {name} is locked to {value}"),
        }
    }
}

impl std::error::Error for GateError {}

impl Default for Gates {
    fn default() -> Self {
        Gates { enabled: GATES.iter().map(|gate| gate.default).collect() }
    }
}

impl Gates {
    /// Whether `name` is on; a name without a row is off.
    pub fn enabled(&self, name: &str) -> bool {
        index(name).is_some_and(|i| self.enabled[i])
    }

    /// Turns a gate on or off.
    pub fn set(&mut self, name: &str, value: bool) -> Result<(), GateError> {
        let i = index(name).ok_or_else(|| GateError::Unknown(name.to_owned()))?;
        if GATES[i].locked && GATES[i].default != value {
            return Err(GateError::Locked(GATES[i].name, GATES[i].default));
        }
        self.enabled[i] = value;
        Ok(())
    }
}

fn index(name: &str) -> Option<usize> {
    GATES.binary_search_by(|gate| gate.name.cmp(name)).ok()
}

/// All gates, sorted by name.
#[rustfmt::skip]
pub static GATES: &[Gate] = &[
    gate("APIResponseCompression", Stage::Beta, true, false),
    gate("APIServerIdentity", Stage::Beta, true, false),
    gate("APIServerTracing", Stage::Ga, true, true),
    gate("APIServingWithRoutine", Stage::Alpha, false, false),
    gate("AggregatedDiscoveryRemoveBetaType", Stage::Deprecated, true, true),
    gate("AllowDNSOnlyNodeCSR", Stage::Deprecated, false, false),
    gate("AllowInsecureKubeletCertificateSigningRequests", Stage::Deprecated, false, false),
    gate("AllowOverwriteTerminationGracePeriodSeconds", Stage::Deprecated, false, true),
    gate("AllowParsingUserUIDFromCertAuth", Stage::Beta, true, false),
    gate("AllowServiceExternalIPs", Stage::Ga, true, false),
    gate("AllowUnsafeMalformedObjectDeletion", Stage::Alpha, false, false),
    gate("AnonymousAuthConfigurableEndpoints", Stage::Ga, true, true),
    gate("AnyVolumeDataSource", Stage::Ga, true, true),
    gate("AuthorizeNodeWithSelectors", Stage::Ga, true, true),
    gate("AuthorizePodWebsocketUpgradeCreatePermission", Stage::Beta, true, false),
    gate("AuthorizeWithSelectors", Stage::Ga, true, true),
    gate("BtreeWatchCache", Stage::Ga, true, true),
    gate("CBORServingAndStorage", Stage::Alpha, false, false),
    gate("CPUManagerPolicyAlphaOptions", Stage::Alpha, false, false),
    gate("CPUManagerPolicyBetaOptions", Stage::Beta, true, false),
    gate("CPUManagerPolicyOptions", Stage::Ga, true, true),
    gate("CRDObservedGenerationTracking", Stage::Beta, false, false),
    gate("CRDValidationRatcheting", Stage::Ga, true, true),
    gate("CSIMigrationPortworx", Stage::Ga, true, true),
    gate("CSIServiceAccountTokenSecrets", Stage::Beta, true, false),
    gate("CSIVolumeHealth", Stage::Alpha, false, false),
    gate("ChangeContainerStatusOnKubeletRestart", Stage::Deprecated, false, false),
    gate("ClearingNominatedNodeNameAfterBinding", Stage::Beta, true, false),
    gate("ClientsAllowCBOR", Stage::Alpha, false, false),
    gate("ClientsPreferCBOR", Stage::Alpha, false, false),
    gate("CloudControllerManagerWatchBasedRoutesReconciliation", Stage::Alpha, false, false),
    gate("CloudControllerManagerWebhook", Stage::Alpha, false, false),
    gate("ClusterTrustBundle", Stage::Beta, false, false),
    gate("ClusterTrustBundleProjection", Stage::Beta, false, false),
    gate("ComponentFlagz", Stage::Alpha, false, false),
    gate("ComponentStatusz", Stage::Alpha, false, false),
    gate("ConcurrentWatchObjectDecode", Stage::Beta, false, false),
    gate("ConsistentListFromCache", Stage::Ga, true, true),
    gate("ConstrainedImpersonation", Stage::Alpha, false, false),
    gate("ContainerCheckpoint", Stage::Beta, true, false),
    gate("ContainerRestartRules", Stage::Beta, true, false),
    gate("ContainerStopSignals", Stage::Alpha, false, false),
    gate("ContextualLogging", Stage::Beta, true, false),
    gate("CoordinatedLeaderElection", Stage::Beta, false, false),
    gate("CrossNamespaceVolumeDataSource", Stage::Alpha, false, false),
    gate("CustomCPUCFSQuotaPeriod", Stage::Alpha, false, false),
    gate("CustomResourceFieldSelectors", Stage::Ga, true, true),
    gate("DRAAdminAccess", Stage::Beta, true, false),
    gate("DRAConsumableCapacity", Stage::Alpha, false, false),
    gate("DRADeviceBindingConditions", Stage::Alpha, false, false),
    gate("DRADeviceTaintRules", Stage::Alpha, false, false),
    gate("DRADeviceTaints", Stage::Alpha, false, false),
    gate("DRAExtendedResource", Stage::Alpha, false, false),
    gate("DRAPartitionableDevices", Stage::Alpha, false, false),
    gate("DRAPrioritizedList", Stage::Beta, true, false),
    gate("DRAResourceClaimDeviceStatus", Stage::Beta, true, false),
    gate("DRASchedulerFilterTimeout", Stage::Beta, true, false),
    gate("DeclarativeValidation", Stage::Beta, true, false),
    gate("DeclarativeValidationTakeover", Stage::Beta, false, false),
    gate("DeploymentReplicaSetTerminatingReplicas", Stage::Beta, true, false),
    gate("DetectCacheInconsistency", Stage::Beta, true, false),
    gate("DisableAllocatorDualWrite", Stage::Ga, true, true),
    gate("DisableCPUQuotaWithExclusiveCPUs", Stage::Beta, true, false),
    gate("DisableNodeKubeProxyVersion", Stage::Deprecated, true, false),
    gate("DynamicResourceAllocation", Stage::Ga, true, true),
    gate("EnvFiles", Stage::Beta, true, false),
    gate("EventedPLEG", Stage::Alpha, false, false),
    gate("ExecProbeTimeout", Stage::Ga, true, true),
    gate("ExternalServiceAccountTokenSigner", Stage::Beta, true, false),
    gate("GangScheduling", Stage::Alpha, false, false),
    gate("GenericWorkload", Stage::Alpha, false, false),
    gate("GitRepoVolumeDriver", Stage::Deprecated, false, false),
    gate("GracefulNodeShutdown", Stage::Beta, true, false),
    gate("GracefulNodeShutdownBasedOnPodPriority", Stage::Beta, true, false),
    gate("HPAConfigurableTolerance", Stage::Beta, true, false),
    gate("HPAScaleToZero", Stage::Alpha, false, false),
    gate("HonorPVReclaimPolicy", Stage::Ga, true, true),
    gate("HostnameOverride", Stage::Beta, true, false),
    gate("ImageMaximumGCAge", Stage::Ga, true, true),
    gate("ImageVolume", Stage::Beta, true, false),
    gate("ImageVolumeWithDigest", Stage::Alpha, false, false),
    gate("InOrderInformers", Stage::Beta, true, false),
    gate("InOrderInformersBatchProcess", Stage::Beta, true, false),
    gate("InPlacePodLevelResourcesVerticalScaling", Stage::Alpha, false, false),
    gate("InPlacePodVerticalScaling", Stage::Ga, true, true),
    gate("InPlacePodVerticalScalingAllocatedStatus", Stage::Deprecated, false, false),
    gate("InPlacePodVerticalScalingExclusiveCPUs", Stage::Alpha, false, false),
    gate("InPlacePodVerticalScalingExclusiveMemory", Stage::Alpha, false, false),
    gate("InTreePluginPortworxUnregister", Stage::Alpha, false, false),
    gate("InformerResourceVersion", Stage::Ga, true, true),
    gate("JobBackoffLimitPerIndex", Stage::Ga, true, true),
    gate("JobManagedBy", Stage::Ga, true, true),
    gate("JobPodReplacementPolicy", Stage::Ga, true, true),
    gate("JobSuccessPolicy", Stage::Ga, true, true),
    gate("KMSv1", Stage::Deprecated, false, false),
    gate("KubeletCgroupDriverFromCRI", Stage::Ga, true, true),
    gate("KubeletCrashLoopBackOffMax", Stage::Beta, true, false),
    gate("KubeletEnsureSecretPulledImages", Stage::Beta, true, false),
    gate("KubeletFineGrainedAuthz", Stage::Beta, true, false),
    gate("KubeletInUserNamespace", Stage::Alpha, false, false),
    gate("KubeletPSI", Stage::Beta, true, false),
    gate("KubeletPodResourcesDynamicResources", Stage::Beta, true, false),
    gate("KubeletPodResourcesGet", Stage::Beta, true, false),
    gate("KubeletPodResourcesListUseActivePods", Stage::Deprecated, true, false),
    gate("KubeletRegistrationGetOnExistsOnly", Stage::Deprecated, false, false),
    gate("KubeletSeparateDiskGC", Stage::Beta, true, false),
    gate("KubeletServiceAccountTokenForCredentialProviders", Stage::Beta, true, false),
    gate("KubeletTracing", Stage::Ga, true, true),
    gate("ListFromCacheSnapshot", Stage::Beta, true, false),
    gate("LocalStorageCapacityIsolationFSQuotaMonitoring", Stage::Beta, false, false),
    gate("LogarithmicScaleDown", Stage::Ga, true, true),
    gate("LoggingAlphaOptions", Stage::Alpha, false, false),
    gate("LoggingBetaOptions", Stage::Beta, true, false),
    gate("MatchLabelKeysInPodAffinity", Stage::Ga, true, true),
    gate("MatchLabelKeysInPodTopologySpread", Stage::Beta, true, false),
    gate("MatchLabelKeysInPodTopologySpreadSelectorMerge", Stage::Beta, true, false),
    gate("MaxUnavailableStatefulSet", Stage::Beta, true, false),
    gate("MemoryManager", Stage::Ga, true, true),
    gate("MemoryQoS", Stage::Alpha, false, false),
    gate("MultiCIDRServiceAllocator", Stage::Ga, true, true),
    gate("MutableCSINodeAllocatableCount", Stage::Beta, true, false),
    gate("MutablePVNodeAffinity", Stage::Alpha, false, false),
    gate("MutablePodResourcesForSuspendedJobs", Stage::Alpha, false, false),
    gate("MutableSchedulingDirectivesForSuspendedJobs", Stage::Alpha, false, false),
    gate("MutatingAdmissionPolicy", Stage::Beta, false, false),
    gate("NFTablesProxyMode", Stage::Ga, true, true),
    gate("NodeDeclaredFeatures", Stage::Alpha, false, false),
    gate("NodeInclusionPolicyInPodTopologySpread", Stage::Ga, true, true),
    gate("NodeLogQuery", Stage::Beta, false, false),
    gate("NodeSwap", Stage::Ga, true, true),
    gate("NominatedNodeNameForExpectation", Stage::Beta, true, false),
    gate("OpenAPIEnums", Stage::Beta, true, false),
    gate("OpportunisticBatching", Stage::Beta, true, false),
    gate("OrderedNamespaceDeletion", Stage::Ga, true, true),
    gate("PodAndContainerStatsFromCRI", Stage::Alpha, false, false),
    gate("PodCertificateRequest", Stage::Beta, false, false),
    gate("PodDeletionCost", Stage::Beta, true, false),
    gate("PodLevelResources", Stage::Beta, true, false),
    gate("PodLifecycleSleepAction", Stage::Ga, true, true),
    gate("PodLifecycleSleepActionAllowZero", Stage::Ga, true, true),
    gate("PodLogsQuerySplitStreams", Stage::Alpha, false, false),
    gate("PodObservedGenerationTracking", Stage::Ga, true, true),
    gate("PodReadyToStartContainersCondition", Stage::Beta, true, false),
    gate("PodSchedulingReadiness", Stage::Ga, true, true),
    gate("PodTopologyLabelsAdmission", Stage::Beta, true, false),
    gate("PortForwardWebsockets", Stage::Beta, true, false),
    gate("PreferSameTrafficDistribution", Stage::Ga, true, true),
    gate("PreventStaticPodAPIReferences", Stage::Beta, true, false),
    gate("ProcMountType", Stage::Beta, true, false),
    gate("QOSReserved", Stage::Alpha, false, false),
    gate("RecoverVolumeExpansionFailure", Stage::Ga, true, true),
    gate("RecursiveReadOnlyMounts", Stage::Ga, true, true),
    gate("ReduceDefaultCrashLoopBackOffDecay", Stage::Alpha, false, false),
    gate("RelaxedDNSSearchValidation", Stage::Ga, true, true),
    gate("RelaxedEnvironmentVariableValidation", Stage::Ga, true, true),
    gate("RelaxedServiceNameValidation", Stage::Alpha, false, false),
    gate("ReloadKubeletServerCertificateFile", Stage::Beta, true, false),
    gate("RemoteRequestHeaderUID", Stage::Beta, true, false),
    gate("ResilientWatchCacheInitialization", Stage::Ga, true, true),
    gate("ResourceHealthStatus", Stage::Alpha, false, false),
    gate("RestartAllContainersOnContainerExits", Stage::Alpha, false, false),
    gate("RetryGenerateName", Stage::Ga, true, true),
    gate("RotateKubeletServerCertificate", Stage::Beta, true, false),
    gate("RuntimeClassInImageCriApi", Stage::Alpha, false, false),
    gate("SELinuxChangePolicy", Stage::Beta, true, false),
    gate("SELinuxMount", Stage::Beta, false, false),
    gate("SELinuxMountReadWriteOncePod", Stage::Beta, true, false),
    gate("SchedulerAsyncAPICalls", Stage::Beta, false, false),
    gate("SchedulerAsyncPreemption", Stage::Beta, true, false),
    gate("SchedulerPopFromBackoffQ", Stage::Beta, true, false),
    gate("SchedulerQueueingHints", Stage::Ga, true, true),
    gate("SeparateCacheWatchRPC", Stage::Deprecated, false, false),
    gate("SeparateTaintEvictionController", Stage::Ga, true, true),
    gate("ServiceAccountNodeAudienceRestriction", Stage::Beta, true, false),
    gate("ServiceAccountTokenJTI", Stage::Ga, true, true),
    gate("ServiceAccountTokenNodeBinding", Stage::Ga, true, true),
    gate("ServiceAccountTokenNodeBindingValidation", Stage::Ga, true, true),
    gate("ServiceAccountTokenPodNodeInfo", Stage::Ga, true, true),
    gate("ServiceCIDRStatusFieldWiping", Stage::Ga, false, false),
    gate("ServiceTrafficDistribution", Stage::Ga, true, true),
    gate("SidecarContainers", Stage::Ga, true, true),
    gate("SizeBasedListCostEstimate", Stage::Beta, true, false),
    gate("StatefulSetSemanticRevisionComparison", Stage::Beta, true, false),
    gate("StorageCapacityScoring", Stage::Alpha, false, false),
    gate("StorageNamespaceIndex", Stage::Deprecated, true, false),
    gate("StorageVersionAPI", Stage::Alpha, false, false),
    gate("StorageVersionHash", Stage::Beta, true, false),
    gate("StorageVersionMigrator", Stage::Beta, false, false),
    gate("StreamingCollectionEncodingToJSON", Stage::Ga, true, true),
    gate("StreamingCollectionEncodingToProtobuf", Stage::Ga, true, true),
    gate("StrictIPCIDRValidation", Stage::Alpha, false, false),
    gate("StructuredAuthenticationConfiguration", Stage::Ga, true, true),
    gate("StructuredAuthenticationConfigurationEgressSelector", Stage::Beta, true, false),
    gate("StructuredAuthenticationConfigurationJWKSMetrics", Stage::Beta, true, false),
    gate("StructuredAuthorizationConfiguration", Stage::Ga, true, true),
    gate("SupplementalGroupsPolicy", Stage::Ga, true, true),
    gate("SystemdWatchdog", Stage::Ga, true, true),
    gate("TaintTolerationComparisonOperators", Stage::Alpha, false, false),
    gate("TokenRequestServiceAccountUIDValidation", Stage::Beta, true, false),
    gate("TopologyAwareHints", Stage::Ga, true, true),
    gate("TopologyManagerPolicyAlphaOptions", Stage::Alpha, false, false),
    gate("TopologyManagerPolicyBetaOptions", Stage::Beta, true, false),
    gate("TopologyManagerPolicyOptions", Stage::Ga, true, true),
    gate("TranslateStreamCloseWebsocketRequests", Stage::Beta, true, false),
    gate("UnauthenticatedHTTP2DOSMitigation", Stage::Beta, true, false),
    gate("UnknownVersionInteroperabilityProxy", Stage::Alpha, false, false),
    gate("UserNamespacesHostNetworkSupport", Stage::Alpha, false, false),
    gate("UserNamespacesSupport", Stage::Beta, true, false),
    gate("VolumeAttributesClass", Stage::Ga, true, false),
    gate("VolumeLimitScaling", Stage::Alpha, false, false),
    gate("WatchCacheInitializationPostStartHook", Stage::Beta, false, false),
    gate("WatchFromStorageWithoutResourceVersion", Stage::Deprecated, false, false),
    gate("WatchList", Stage::Beta, true, false),
    gate("WatchListClient", Stage::Beta, true, false),
    gate("WinDSR", Stage::Ga, true, true),
    gate("WinOverlay", Stage::Ga, true, true),
    gate("WindowsCPUAndMemoryAffinity", Stage::Alpha, false, false),
    gate("WindowsGracefulNodeShutdown", Stage::Beta, true, false),
    gate("WindowsHostNetwork", Stage::Deprecated, false, false),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_defaults_hold() {
        assert!(GATES.windows(2).all(|pair| pair[0].name < pair[1].name));
        let mut gates = Gates::default();
        assert!(!gates.enabled("NoSuchGate"));
        assert_eq!(gates.set("NoSuchGate", true), Err(GateError::Unknown("NoSuchGate".into())));
        let alpha = GATES.iter().find(|g| g.stage == Stage::Alpha && !g.locked).unwrap();
        assert!(!gates.enabled(alpha.name));
        gates.set(alpha.name, true).unwrap();
        assert!(gates.enabled(alpha.name));
    }
}
