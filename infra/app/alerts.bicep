// Alert rules over the telemetry, and who is told.

@description('Name of the Log Analytics workspace that the rules query.')
param workspaceName string
@description('Azure region.')
param location string
@description('Tags of the resources.')
param tags object
@description('Address that alerts are sent to. Empty: alerts show in the portal only.')
param email string

// A span's time is its start, and a rule looks at its window only: it must be told to look back as far as it may. That is
// two days, so a DELIVERY_DEADLINE of a day is covered, and one of 47 hours the longest that is.
var lookBack = 'P2D'

// Counted are those that arrived within the window, three times as long as the time between two looks: none is missed
// because it arrived late, and while the alert is on, the same one is no news. Without a column TimeGenerated a rule
// counts all rows, whenever they began.
var newlyFailed = '${loadTextContent('../queries/failed-deliveries.kql')}| where Arrived > ago(15m)'

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
    description: 'A delivery has ended with something undelivered: the partner rejected a record, or the deadline passed. infra/queries/failed-deliveries.kql lists them with their reasons.'
    enabled: true
    severity: 2
    scopes: [workspace.id]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    overrideQueryTimeRange: lookBack
    // At the first deployment the workspace has no tables to validate a query against.
    skipQueryValidation: true
    autoMitigate: true
    criteria: {
      allOf: [
        {
          query: newlyFailed
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
    description: 'A delivery, perhaps a whole batch, has waited for over an hour: the partner or its token endpoint is in trouble. infra/queries/unfinished-deliveries.kql lists all that wait.'
    enabled: true
    severity: 3
    scopes: [workspace.id]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT6H'
    overrideQueryTimeRange: lookBack
    skipQueryValidation: true
    autoMitigate: true
    criteria: {
      allOf: [
        {
          query: loadTextContent('../queries/unfinished-deliveries.kql')
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          // However few they are: one of them may be a batch of a thousand records.
          threshold: 0
          failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
        }
      ]
    }
    actions: { actionGroups: empty(email) ? [] : [people.id] }
  }
}
