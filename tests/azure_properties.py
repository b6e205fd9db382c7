"""The properties of Azure's resources that the templates set: by resource type, each with its path.

Bicep calls a property that a resource does not have a warning, and Azure ignores most of them. So a change of the
templates adds here what it uses, as learn.microsoft.com/azure/templates has it for the version of the type. Members of
a map, whose names are the user's own, are `*`.

All of them have been compared with Azure/bicep-types-az of 20 August 2026, generated/*/NAMESPACE/VERSION/types.json:
names, types, values where there are few, what is required and what is read-only.
"""

from __future__ import annotations

# Those that every type has, where they are of use.
COMMON = {"location", "name", "parent", "scope", "tags"}
PROPERTIES = {
    "Microsoft.Authorization/roleAssignments": {
        "properties.principalId",
        "properties.principalType",
        "properties.roleDefinitionId",
    },
    "Microsoft.DurableTask/schedulers": {
        "properties.ipAllowlist",
        "properties.sku.capacity",
        "properties.sku.name",
    },
    "Microsoft.DurableTask/schedulers/taskHubs": set[str](),
    "Microsoft.Insights/actionGroups": {
        "properties.emailReceivers.emailAddress",
        "properties.emailReceivers.name",
        "properties.emailReceivers.useCommonAlertSchema",
        "properties.enabled",
        "properties.groupShortName",
    },
    "Microsoft.Insights/components": {
        "kind",
        "properties.Application_Type",
        "properties.DisableLocalAuth",
        "properties.WorkspaceResourceId",
    },
    "Microsoft.Insights/diagnosticSettings": {
        "properties.logAnalyticsDestinationType",
        "properties.logs.category",
        "properties.logs.enabled",
        "properties.workspaceId",
    },
    "Microsoft.Insights/scheduledQueryRules": {
        "properties.actions.actionGroups",
        "properties.autoMitigate",
        "properties.criteria.allOf.failingPeriods.minFailingPeriodsToAlert",
        "properties.criteria.allOf.failingPeriods.numberOfEvaluationPeriods",
        "properties.criteria.allOf.operator",
        "properties.criteria.allOf.query",
        "properties.criteria.allOf.threshold",
        "properties.criteria.allOf.timeAggregation",
        "properties.description",
        "properties.displayName",
        "properties.enabled",
        "properties.evaluationFrequency",
        "properties.overrideQueryTimeRange",
        "properties.scopes",
        "properties.severity",
        "properties.skipQueryValidation",
        "properties.windowSize",
    },
    "Microsoft.KeyVault/vaults": {
        "properties.enablePurgeProtection",
        "properties.enableRbacAuthorization",
        "properties.enableSoftDelete",
        "properties.networkAcls.bypass",
        "properties.networkAcls.defaultAction",
        "properties.publicNetworkAccess",
        "properties.sku.family",
        "properties.sku.name",
        "properties.softDeleteRetentionInDays",
        "properties.tenantId",
    },
    "Microsoft.KeyVault/vaults/secrets": {
        "properties.contentType",
        "properties.value",
    },
    "Microsoft.ManagedIdentity/userAssignedIdentities": set[str](),
    "Microsoft.Network/privateDnsZones": set[str](),
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": {
        "properties.registrationEnabled",
        "properties.virtualNetwork.id",
    },
    "Microsoft.Network/privateEndpoints": {
        "properties.privateLinkServiceConnections.name",
        "properties.privateLinkServiceConnections.properties.groupIds",
        "properties.privateLinkServiceConnections.properties.privateLinkServiceId",
        "properties.subnet.id",
    },
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": {
        "properties.privateDnsZoneConfigs.name",
        "properties.privateDnsZoneConfigs.properties.privateDnsZoneId",
    },
    "Microsoft.Network/virtualNetworks": {
        "properties.addressSpace.addressPrefixes",
        "properties.subnets.name",
        "properties.subnets.properties.addressPrefix",
        "properties.subnets.properties.delegations.name",
        "properties.subnets.properties.delegations.properties.serviceName",
        "properties.subnets.properties.privateEndpointNetworkPolicies",
    },
    "Microsoft.OperationalInsights/workspaces": {
        "properties.features.disableLocalAuth",
        "properties.retentionInDays",
        "properties.sku.name",
    },
    "Microsoft.OperationalInsights/workspaces/savedSearches": {
        "properties.category",
        "properties.displayName",
        "properties.query",
    },
    "Microsoft.Resources/resourceGroups": set[str](),
    "Microsoft.Storage/storageAccounts": {
        "kind",
        "properties.accessTier",
        "properties.allowBlobPublicAccess",
        "properties.allowCrossTenantReplication",
        "properties.allowSharedKeyAccess",
        "properties.defaultToOAuthAuthentication",
        "properties.minimumTlsVersion",
        "properties.networkAcls.bypass",
        "properties.networkAcls.defaultAction",
        "properties.publicNetworkAccess",
        "properties.supportsHttpsTrafficOnly",
        "sku.name",
    },
    "Microsoft.Storage/storageAccounts/blobServices": set[str](),
    "Microsoft.Storage/storageAccounts/blobServices/containers": set[str](),
    "Microsoft.Web/serverfarms": {
        "kind",
        "properties.reserved",
        "sku.name",
        "sku.tier",
    },
    "Microsoft.Web/sites": {
        "identity.type",
        "identity.userAssignedIdentities.*",
        "kind",
        "properties.functionAppConfig.deployment.storage.authentication.type",
        "properties.functionAppConfig.deployment.storage.authentication.userAssignedIdentityResourceId",
        "properties.functionAppConfig.deployment.storage.type",
        "properties.functionAppConfig.deployment.storage.value",
        "properties.functionAppConfig.runtime.name",
        "properties.functionAppConfig.runtime.version",
        "properties.functionAppConfig.scaleAndConcurrency.alwaysReady.instanceCount",
        "properties.functionAppConfig.scaleAndConcurrency.alwaysReady.name",
        "properties.functionAppConfig.scaleAndConcurrency.instanceMemoryMB",
        "properties.functionAppConfig.scaleAndConcurrency.maximumInstanceCount",
        "properties.functionAppConfig.scaleAndConcurrency.triggers.http.perInstanceConcurrency",
        "properties.httpsOnly",
        "properties.keyVaultReferenceIdentity",
        "properties.serverFarmId",
        "properties.siteConfig.minTlsVersion",
        "properties.virtualNetworkSubnetId",
    },
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {
        "properties.allow",
    },
    "Microsoft.Web/sites/config": {
        "properties",
    },
}
