// Alert rules over the telemetry, and who is told.

@description('Name of the Log Analytics workspace that the rules query.')
param workspaceName string
@description('Azure region.')
param location string
@description('Tags of the resources.')
param tags object
@description('Address that alerts are sent to. Empty: alerts show in the portal only.')
param email string

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName
}

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(email)) {
  name: 'relay-operators'
  location: 'global'
  tags: tags
  properties: {
    enabled: true
    groupShortName: 'relay'
    emailReceivers: [
      { name: 'operator', emailAddress: email, useCommonAlertSchema: true }
    ]
  }
}

resource failedDeliveries 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = {
  name: 'relay-failed-deliveries'
  location: location
  tags: tags
  properties: {
    displayName: 'Business Relay: deliveries failed'
    description: 'A delivery was rejected by the partner or given up after its deadline. infra/queries/failed-deliveries.kql lists them with their reasons.'
    enabled: true
    severity: 2
    scopes: [workspace.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      allOf: [
        {
          query: loadTextContent('../queries/failed-deliveries.kql')
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
        }
      ]
    }
    actions: { actionGroups: empty(email) ? [] : [people.id] }
  }
}

resource unfinishedDeliveries 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = {
  name: 'relay-unfinished-deliveries'
  location: location
  tags: tags
  properties: {
    displayName: 'Business Relay: deliveries wait'
    description: 'More than 100 deliveries have waited for over an hour: the partner or its token endpoint is in trouble. infra/queries/unfinished-deliveries.kql lists them.'
    enabled: true
    severity: 3
    scopes: [workspace.id]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT6H'
    autoMitigate: true
    criteria: {
      allOf: [
        {
          query: loadTextContent('../queries/unfinished-deliveries.kql')
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 100
          failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
        }
      ]
    }
    actions: { actionGroups: empty(email) ? [] : [people.id] }
  }
}
