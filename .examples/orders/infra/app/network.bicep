// A virtual network that the app reaches out through, with private endpoints of the storage account and the key vault.
// All else is reached at its public address: the scheduler, Application Insights, the partner and its token endpoint.

@description('Name of the virtual network.')
param name string
@description('Azure region.')
param location string
@description('Tags of the resources.')
param tags object
@description('Name of the storage account.')
param storageAccountName string
@description('Name of the key vault.')
param vaultName string

resource account 'Microsoft.Storage/storageAccounts@2023-05-01' existing = {
  name: storageAccountName
}

resource vault 'Microsoft.KeyVault/vaults@2023-07-01' existing = {
  name: vaultName
}

// groupId is the name that Private Link gives to the part of the resource.
var endpoints = [
  { groupId: 'blob', resourceId: account.id, zone: 'privatelink.blob.${environment().suffixes.storage}' }
  { groupId: 'queue', resourceId: account.id, zone: 'privatelink.queue.${environment().suffixes.storage}' }
  { groupId: 'table', resourceId: account.id, zone: 'privatelink.table.${environment().suffixes.storage}' }
  // ".vault.azure.net" is found under "privatelink.vaultcore.azure.net".
  {
    groupId: 'vault'
    resourceId: vault.id
    zone: 'privatelink${replace(environment().suffixes.keyvaultDns, '.vault.', '.vaultcore.')}'
  }
]

resource network 'Microsoft.Network/virtualNetworks@2024-01-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: ['10.0.0.0/16'] }
    subnets: [
      {
        name: 'private-endpoints'
        properties: { addressPrefix: '10.0.1.0/24', privateEndpointNetworkPolicies: 'Disabled' }
      }
      {
        name: 'app'
        properties: {
          addressPrefix: '10.0.2.0/24'
          delegations: [
            // Flex Consumption runs in such an environment.
            { name: 'flex-consumption', properties: { serviceName: 'Microsoft.App/environments' } }
          ]
        }
      }
    ]
  }
}

resource zones 'Microsoft.Network/privateDnsZones@2020-06-01' = [
  for endpoint in endpoints: {
    name: endpoint.zone
    location: 'global'
    tags: tags
  }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2020-06-01' = [
  for (endpoint, i) in endpoints: {
    parent: zones[i]
    name: '${name}-${endpoint.groupId}'
    location: 'global'
    tags: tags
    properties: {
      registrationEnabled: false
      virtualNetwork: { id: network.id }
    }
  }
]

resource privateEndpoints 'Microsoft.Network/privateEndpoints@2024-01-01' = [
  for endpoint in endpoints: {
    name: 'pe-${name}-${endpoint.groupId}'
    location: location
    tags: tags
    properties: {
      subnet: { id: '${network.id}/subnets/private-endpoints' }
      privateLinkServiceConnections: [
        {
          name: endpoint.groupId
          properties: { privateLinkServiceId: endpoint.resourceId, groupIds: [endpoint.groupId] }
        }
      ]
    }
  }
]

resource zoneGroups 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-01-01' = [
  for (endpoint, i) in endpoints: {
    parent: privateEndpoints[i]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        { name: endpoint.groupId, properties: { privateDnsZoneId: zones[i].id } }
      ]
    }
  }
]

output appSubnetId string = '${network.id}/subnets/app'
