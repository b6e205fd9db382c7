// The Durable Task Scheduler and its task hub: the durable backend instead of the storage account's queues and tables.

@description('Name of the scheduler.')
param name string
@description('Azure region. It must offer the Durable Task Scheduler.')
param location string
@description('Tags of the resource.')
param tags object
@allowed(['Consumption', 'Dedicated'])
@description('SKU: pay per action, or reserved capacity.')
param skuName string
@description('Client id of the identity that the app connects as.')
param clientId string

// The hub of host.dts.json; Durable Functions looks for this name.
var taskHubName = 'BusinessRelay'

resource scheduler 'Microsoft.DurableTask/schedulers@2025-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    // Entra identities with a role only, from any address: Flex Consumption has no fixed outbound addresses.
    ipAllowlist: ['0.0.0.0/0']
    sku: skuName == 'Dedicated' ? { name: skuName, capacity: 1 } : { name: skuName }
  }
}

resource taskHub 'Microsoft.DurableTask/schedulers/taskHubs@2025-11-01' = {
  parent: scheduler
  name: taskHubName
}

output name string = scheduler.name
// Not a secret: it names the endpoint and the identity.
output connectionString string = 'Endpoint=${scheduler.properties.endpoint};Authentication=ManagedIdentity;ClientID=${clientId}'
