// The key vault with the app's secrets. App settings hold references to them, never the secrets.

@minLength(3)
@maxLength(24)
@description('Name of the key vault.')
param name string
@description('Azure region.')
param location string
@description('Tags of the resource.')
param tags object
@description('Refuse the public network: the private endpoint is the only way in.')
param isPrivate bool
@description('Keep the deleted vault from being purged within its 7 days. Cannot be switched off.')
param isPurgeProtected bool
@description('Name of the Log Analytics workspace that the audit log goes to.')
param workspaceName string
@secure()
@description('The client secret for the partner\'s token endpoint; "key-vault" if it is stored already, empty for none.')
param businessApiClientSecret string
@secure()
@description('URL of the token store, with its password; "key-vault" if it is stored already, empty for none.')
param tokenStoreUrl string
@secure()
@description('Key that tokens are encrypted with in the token store; "key-vault" if it is stored already, empty for none.')
param tokenStoreKey string

// "key-vault" deploys again without the secret at hand: the reference stays, and nothing is written.
var notToStore = ['', 'key-vault']

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 7
    // Azure rejects "false": protection cannot be removed.
    enablePurgeProtection: isPurgeProtected ? true : null
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: isPrivate ? 'Deny' : 'Allow'
      // Azure Resource Manager, which writes the secrets below, is one of these services.
      bypass: 'AzureServices'
    }
  }
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName
}

// Who read or changed a secret, and from where, in the table AZKVAuditLogs.
resource audit 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'audit'
  scope: vault
  properties: {
    workspaceId: workspace.id
    logAnalyticsDestinationType: 'Dedicated'
    logs: [
      { category: 'AuditEvent', enabled: true }
    ]
  }
}

resource clientSecret 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!contains(notToStore, businessApiClientSecret)) {
  parent: vault
  name: 'business-api-client-secret'
  properties: { value: businessApiClientSecret, contentType: 'BUSINESS_API_CLIENT_SECRET' }
}

resource storeUrl 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!contains(notToStore, tokenStoreUrl)) {
  parent: vault
  name: 'token-store-url'
  properties: { value: tokenStoreUrl, contentType: 'TOKEN_STORE_URL' }
}

resource storeKey 'Microsoft.KeyVault/vaults/secrets@2023-07-01' = if (!contains(notToStore, tokenStoreKey)) {
  parent: vault
  name: 'token-store-key'
  properties: { value: tokenStoreKey, contentType: 'TOKEN_STORE_KEY' }
}

var hasClientSecret = !empty(businessApiClientSecret)
var hasStoreUrl = !empty(tokenStoreUrl)
var hasStoreKey = !empty(tokenStoreKey)
// A reference without a version picks up a rotated secret within a day. infra/README.md says how to do it at once.
var reference = '@Microsoft.KeyVault(SecretUri=${vault.properties.vaultUri}secrets/'

output name string = vault.name
output businessApiClientSecretReference string = hasClientSecret ? '${reference}${clientSecret.name})' : ''
output tokenStoreUrlReference string = hasStoreUrl ? '${reference}${storeUrl.name})' : ''
output tokenStoreKeyReference string = hasStoreKey ? '${reference}${storeKey.name})' : ''
