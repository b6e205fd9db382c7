// Business Relay in Azure: one function app on Flex Consumption, and the resources it needs. `azd up` deploys it.
targetScope = 'subscription'

@minLength(1)
@maxLength(64)
@description('Name of the azd environment. It tags every resource, and their names are derived from it.')
param environmentName string

@minLength(1)
@description('Azure region of every resource. It must offer Flex Consumption.')
@metadata({ azd: { type: 'location' } })
param location string

@minLength(1)
@description('Base URL of the partner API: the app setting BUSINESS_API_URL.')
param businessApiUrl string

@description('All other app settings by name; empty ones are left out and keep their defaults.')
param appSettings object = {}

@secure()
@description('The app setting BUSINESS_API_CLIENT_SECRET, to be stored in Key Vault. "key-vault": it is stored already. Empty: no secret is used.')
param businessApiClientSecret string = ''

@secure()
@description('The app setting TOKEN_STORE_URL, which may hold a password, to be stored in Key Vault. "key-vault": it is stored already. Empty: no token store.')
param tokenStoreUrl string = ''

@secure()
@description('The app setting TOKEN_STORE_KEY, to be stored in Key Vault. "key-vault": it is stored already. Empty: no token store.')
param tokenStoreKey string = ''

@allowed(['storage', 'dts'])
@description('Where orchestrations live: "storage" (queues and tables of the storage account) or "dts" (Durable Task Scheduler). The package must be built for the same one, which azure.yaml ensures.')
param durableBackend string = 'storage'

@allowed(['Consumption', 'Dedicated'])
@description('SKU of the Durable Task Scheduler; used with durableBackend "dts" only.')
param schedulerSku string = 'Consumption'

@allowed(['Standard_LRS', 'Standard_ZRS'])
@description('SKU of the storage account, which holds the deliveries under way: three copies in one data centre, or one in each of three zones.')
param storageSku string = 'Standard_LRS'

@description('Keep a deleted key vault from being purged within its 7 days. Cannot be switched off; until then the name stays taken.')
param purgeProtection bool = false

@description('Put the storage account and the key vault behind private endpoints and connect the app to them through a virtual network.')
param vnetEnabled bool = false

@minValue(0)
@maxValue(20)
@description('Instances of the group "durable" (orchestrators and activities) that are always ready. 0 saves their cost, at the price of a cold start after idle times.')
param alwaysReadyInstances int = 1

@minValue(1)
@maxValue(1000)
@description('Most instances that each group of functions scales out to: the routes, and "durable". The always-ready ones are added to them.')
param maximumInstanceCount int = 40

@allowed([512, 2048, 4096])
@description('Memory of one instance in MB.')
param instanceMemoryMB int = 2048

@description('Let the Python worker send its own spans, metrics and log fields to Application Insights. The package then needs azure-monitor-opentelemetry, which azure.yaml ensures. Without it the worker starts 0.9 s sooner.')
param workerTelemetry bool = true

@description('Address that alerts are sent to. Empty: alerts show in the portal only.')
param alertEmail string = ''

@description('Object id of the person who deploys, and may then set the secrets in Key Vault. azd fills it in. Empty: only the app gets a role.')
param principalId string = ''

var resourceToken = toLower(uniqueString(subscription().id, environmentName, location))
var tags = { 'azd-env-name': environmentName }
var functionAppName = 'func-relay-${resourceToken}'
var usesScheduler = durableBackend == 'dts'
// The app has no system-assigned identity: "system" means its user-assigned one.
var managedIdentity = appSettings.?BUSINESS_API_MANAGED_IDENTITY ?? ''
// docs/reference/telemetry.md gives the reason for each. An end-to-end test runs the app with these values.
var workerTelemetrySettings = {
  PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY: 'true'
  PYTHON_APPLICATIONINSIGHTS_LOGGER_NAME: 'shared'
  OTEL_TRACES_SAMPLER: 'parentbased_always_on'
  OTEL_PYTHON_DISABLED_INSTRUMENTATIONS: 'azure_sdk,django,fastapi,flask,httpx,httpx2,psycopg2,requests,urllib,urllib3'
}

resource group 'Microsoft.Resources/resourceGroups@2024-03-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module identity './app/identity.bicep' = {
  name: 'identity'
  scope: group
  params: {
    name: 'id-relay-${resourceToken}'
    location: location
    tags: tags
  }
}

module storage './app/storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    name: 'st${resourceToken}'
    location: location
    tags: tags
    skuName: storageSku
    isPrivate: vnetEnabled
  }
}

module vault './app/key-vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    name: 'kv-${resourceToken}'
    location: location
    tags: tags
    isPrivate: vnetEnabled
    isPurgeProtected: purgeProtection
    workspaceName: monitoring.outputs.workspaceName
    businessApiClientSecret: businessApiClientSecret
    tokenStoreUrl: tokenStoreUrl
    tokenStoreKey: tokenStoreKey
  }
}

module monitoring './app/monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    workspaceName: 'log-${resourceToken}'
    applicationInsightsName: 'appi-${resourceToken}'
    location: location
    tags: tags
  }
}

module alerts './app/alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    workspaceName: monitoring.outputs.workspaceName
    location: location
    tags: tags
    email: alertEmail
  }
}

module scheduler './app/scheduler.bicep' = if (usesScheduler) {
  name: 'scheduler'
  scope: group
  params: {
    name: 'dts-${resourceToken}'
    location: location
    tags: tags
    skuName: schedulerSku
    clientId: identity.outputs.clientId
  }
}

module network './app/network.bicep' = if (vnetEnabled) {
  name: 'network'
  scope: group
  params: {
    name: 'vnet-${resourceToken}'
    location: location
    tags: tags
    storageAccountName: storage.outputs.name
    vaultName: vault.outputs.name
  }
}

module roles './app/roles.bicep' = {
  name: 'roles'
  scope: group
  params: {
    appPrincipalId: identity.outputs.principalId
    deployerPrincipalId: principalId
    storageAccountName: storage.outputs.name
    vaultName: vault.outputs.name
    applicationInsightsName: monitoring.outputs.applicationInsightsName
    schedulerName: usesScheduler ? scheduler!.outputs.name : ''
  }
}

module functionApp './app/function-app.bicep' = {
  name: 'function-app'
  scope: group
  // The host reads its storage and its secrets at its start.
  dependsOn: [roles]
  params: {
    name: functionAppName
    planName: 'plan-${resourceToken}'
    location: location
    tags: tags
    identityId: identity.outputs.id
    subnetId: vnetEnabled ? network!.outputs.appSubnetId : ''
    packageContainerUrl: storage.outputs.packageContainerUrl
    alwaysReadyInstances: alwaysReadyInstances
    maximumInstanceCount: maximumInstanceCount
    instanceMemoryMB: instanceMemoryMB
    appSettings: union(
      appSettings,
      {
        AzureWebJobsStorage__credential: 'managedidentity'
        AzureWebJobsStorage__clientId: identity.outputs.clientId
        AzureWebJobsStorage__blobServiceUri: storage.outputs.blobUrl
        AzureWebJobsStorage__queueServiceUri: storage.outputs.queueUrl
        AzureWebJobsStorage__tableServiceUri: storage.outputs.tableUrl
        APPLICATIONINSIGHTS_CONNECTION_STRING: monitoring.outputs.connectionString
        APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'Authorization=AAD;ClientId=${identity.outputs.clientId}'
        DURABLE_TASK_SCHEDULER_CONNECTION_STRING: usesScheduler ? scheduler!.outputs.connectionString : ''
        BUSINESS_API_URL: businessApiUrl
        BUSINESS_API_MANAGED_IDENTITY: managedIdentity == 'system' ? identity.outputs.clientId : managedIdentity
        BUSINESS_API_CLIENT_SECRET: vault.outputs.businessApiClientSecretReference
        TOKEN_STORE_URL: vault.outputs.tokenStoreUrlReference
        TOKEN_STORE_KEY: vault.outputs.tokenStoreKeyReference
      },
      workerTelemetry ? workerTelemetrySettings : {}
    )
  }
}

output AZURE_LOCATION string = location
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_FUNCTION_APP_NAME string = functionApp.outputs.name
output AZURE_FUNCTION_APP_URL string = functionApp.outputs.url
output AZURE_KEY_VAULT_NAME string = vault.outputs.name
output AZURE_LOG_ANALYTICS_WORKSPACE_NAME string = monitoring.outputs.workspaceName
