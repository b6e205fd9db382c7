// Log Analytics, Application Insights, which accept Entra identities only, and the saved queries.

@description('Name of the Log Analytics workspace.')
param workspaceName string
@description('Name of the Application Insights resource.')
param applicationInsightsName string
@description('Azure region.')
param location string
@description('Tags of the resources.')
param tags object
@description('Days that telemetry is kept.')
param retentionInDays int = 30

var queries = [
  {
    name: 'failed-deliveries'
    title: 'Deliveries that were rejected, expired or failed, and why'
    query: loadTextContent('../queries/failed-deliveries.kql')
  }
  {
    name: 'delivery-times'
    title: 'Deliveries, their failures and how long they took'
    query: loadTextContent('../queries/delivery-times.kql')
  }
  {
    name: 'one-delivery'
    title: 'Everything about one delivery'
    query: loadTextContent('../queries/one-delivery.kql')
  }
  {
    name: 'unfinished-deliveries'
    title: 'Deliveries that began and have not ended'
    query: loadTextContent('../queries/unfinished-deliveries.kql')
  }
  {
    name: 'token-problems'
    title: 'Partners whose token endpoint refuses the app, and why'
    query: loadTextContent('../queries/token-problems.kql')
  }
  {
    name: 'partner-calls'
    title: 'Calls to the partner by result'
    query: loadTextContent('../queries/partner-calls.kql')
  }
]

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' = {
  name: workspaceName
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: retentionInDays
    // No workspace keys: only Entra identities send and query.
    features: { disableLocalAuth: true }
  }
}

resource insights 'Microsoft.Insights/components@2020-02-02' = {
  name: applicationInsightsName
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    // The connection string alone is not a credential.
    DisableLocalAuth: true
  }
}

resource savedQueries 'Microsoft.OperationalInsights/workspaces/savedSearches@2020-08-01' = [
  for query in queries: {
    parent: workspace
    name: query.name
    properties: {
      category: 'Business Relay'
      displayName: query.title
      query: query.query
    }
  }
]

output workspaceName string = workspace.name
output applicationInsightsName string = insights.name
output connectionString string = insights.properties.ConnectionString
