// Alert rules over the telemetry, and who is notified.

@description('Name of the Log Analytics workspace that the rules query.')
param workspaceName string
@description('Azure region.')
param location string
@description('Tags of the resources.')
param tags object
@description('Address that alerts are sent to. Empty: alerts show in the portal only.')
param email string

// A span's time is its start, and a rule sees only its window unless it is told to look further back. Two days is the
// maximum: it covers a DELIVERY_DEADLINE of up to 47 hours.
var lookBack = 'P2D'

// Rules of news count what arrived in their window, which is three times as long as the time between two evaluations, so
// that nothing is missed because it arrived late. Without a column TimeGenerated a rule counts all rows, whenever they
// began.
var isNews = '| where Arrived > ago(15m)'

var rules = [
  {
    name: 'relay-failed-deliveries'
    title: 'Business Relay: deliveries failed'
    description: 'A delivery has ended with something undelivered: the partner rejected a record, the deadline passed, or the orchestration failed and could not be recovered. infra/queries/failed-deliveries.kql lists them with their reasons.'
    severity: 2
    frequency: 'PT5M'
    window: 'PT15M'
    query: '${loadTextContent('../queries/failed-deliveries.kql')}${isNews}'
  }
  {
    name: 'relay-token-problems'
    title: 'Business Relay: a token endpoint refuses the app'
    description: 'No access token is issued to the app, because its client, secret, key or scope is wrong. Deliveries to this partner wait until the settings are right. infra/queries/token-problems.kql says which partner, and why.'
    severity: 1
    frequency: 'PT5M'
    window: 'PT15M'
    query: '${loadTextContent('../queries/token-problems.kql')}${isNews}'
  }
  {
    name: 'relay-unfinished-deliveries'
    title: 'Business Relay: deliveries wait'
    description: 'A delivery, perhaps a whole batch, has waited for more than an hour: the partner or its token endpoint is in trouble. infra/queries/unfinished-deliveries.kql lists all that wait.'
    severity: 3
    frequency: 'PT15M'
    window: 'PT6H'
    query: loadTextContent('../queries/unfinished-deliveries.kql')
  }
]

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

resource alertRules 'Microsoft.Insights/scheduledQueryRules@2022-06-15' = [
  for rule in rules: {
    name: rule.name
    location: location
    tags: tags
    properties: {
      displayName: rule.title
      description: rule.description
      enabled: true
      severity: rule.severity
      scopes: [workspace.id]
      evaluationFrequency: rule.frequency
      windowSize: rule.window
      overrideQueryTimeRange: lookBack
      // At the first deployment the workspace has no tables to validate a query against.
      skipQueryValidation: true
      autoMitigate: true
      criteria: {
        allOf: [
          {
            query: rule.query
            timeAggregation: 'Count'
            operator: 'GreaterThan'
            // However few there are: one of them may be a batch of a thousand records.
            threshold: 0
            failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
          }
        ]
      }
      actions: { actionGroups: empty(email) ? [] : [people.id] }
    }
  }
]
