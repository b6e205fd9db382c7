// The function app on Flex Consumption, with its plan and its settings.

@description('Name of the function app.')
param name string
@description('Name of the plan.')
param planName string
@description('Azure region. It must offer Flex Consumption.')
param location string
@description('Tags of the resources.')
param tags object
@description('Resource id of the user-assigned identity that the app runs as.')
param identityId string
@description('Resource id of the subnet that the app reaches out through. Empty: the public network.')
param subnetId string
@description('URL of the blob container that the package is deployed to.')
param packageContainerUrl string
@description('Instances of the group "durable" that are always ready.')
param alwaysReadyInstances int
@description('Most instances that each group of functions scales out to.')
param maximumInstanceCount int
@description('Memory of one instance in MB.')
param instanceMemoryMB int
@description('App settings by name; empty ones are left out.')
param appSettings object

// The Python that the app is tested with, as in .python-version.
var pythonVersion = '3.13'
// The same as extensions.http.maxConcurrentRequests in host.json. Flex Consumption's default for Python is 1, an instance
// for each request in flight, but the routes here are coroutines that mostly wait.
var httpConcurrency = 100

resource plan 'Microsoft.Web/serverfarms@2024-04-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true }
}

resource app 'Microsoft.Web/sites@2024-04-01' = {
  name: name
  location: location
  // azd finds the app of the service "relay" by this tag.
  tags: union(tags, { 'azd-service-name': 'relay' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identityId
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: { minTlsVersion: '1.2' }
    functionAppConfig: {
      runtime: { name: 'python', version: pythonVersion }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUrl
          authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identityId }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        triggers: { http: { perInstanceConcurrency: httpConcurrency } }
        // Orchestrators and activities share one scale group, "durable".
        alwaysReady: alwaysReadyInstances > 0 ? [{ name: 'durable', instanceCount: alwaysReadyInstances }] : []
      }
    }
  }
}

resource settings 'Microsoft.Web/sites/config@2024-04-01' = {
  parent: app
  name: 'appsettings'
  properties: toObject(
    filter(items(appSettings), setting => !empty(setting.value)),
    setting => setting.key,
    setting => setting.value
  )
}

// Deployments authenticate with Entra, not with a user name and password. Not a loop, because the compiler must see the
// names: they decide the type of the properties.
resource noBasicAuthOnScm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01' = {
  parent: app
  name: 'scm'
  properties: { allow: false }
}

resource noBasicAuthOnFtp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2024-04-01' = {
  parent: app
  name: 'ftp'
  properties: { allow: false }
}

output name string = app.name
output url string = 'https://${app.properties.defaultHostName}'
