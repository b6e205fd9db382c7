// The app's identity: what it is to storage, Key Vault, Application Insights and, if wanted, the partner.

@description('Name of the identity.')
param name string
@description('Azure region.')
param location string
@description('Tags of the resource.')
param tags object

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
  tags: tags
}

output id string = identity.id
output clientId string = identity.properties.clientId
output principalId string = identity.properties.principalId
