// The storage account: the deployed package, the host's leases, and Durable's queues and tables. No shared keys.

@minLength(3)
@maxLength(24)
@description('Name of the storage account.')
param name string
@description('Azure region.')
param location string
@description('Tags of the resource.')
param tags object
@description('SKU: how many copies there are, and how far apart.')
param skuName string
@description('Refuse the public network: private endpoints are the only way in.')
param isPrivate bool

var packageContainerName = 'app-package'

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: skuName }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: isPrivate ? 'Deny' : 'Allow'
      bypass: 'None'
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: account
  name: 'default'
}

resource packages 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: packageContainerName
}

output name string = account.name
output blobUrl string = account.properties.primaryEndpoints.blob
output queueUrl string = account.properties.primaryEndpoints.queue
output tableUrl string = account.properties.primaryEndpoints.table
output packageContainerUrl string = '${account.properties.primaryEndpoints.blob}${packages.name}'
