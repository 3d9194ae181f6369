//! Shapes of CloudWatch's inputs, as the published model has them, and the service's own bounds where the model has
//! none.

use crate::model::{Member, Shape, Text};

static NAME: Text = Text { min: 1, max: 255, pattern: None };
static NAMESPACE: Text = Text { min: 1, max: 255, pattern: Some(r"^[^:].*$") };
static VALUE: Text = Text { min: 1, max: 1024, pattern: None };
static DESCRIPTION: Text = Text { min: 0, max: 1024, pattern: None };
static ACTION: Text = Text { min: 1, max: 1024, pattern: None };
static REASON: Text = Text { min: 0, max: 1023, pattern: None };
static REASON_DATA: Text = Text { min: 0, max: 4000, pattern: None };
static EXPRESSION: Text = Text { min: 1, max: 2048, pattern: None };
static ID: Text = Text { min: 1, max: 255, pattern: Some(r"^[a-z][a-zA-Z0-9_]*$") };
static LABEL: Text = Text { min: 0, max: 2048, pattern: None };
static NEXT_TOKEN: Text = Text { min: 0, max: 1024, pattern: None };
static TAG_KEY: Text = Text { min: 1, max: 128, pattern: None };
static TAG_VALUE: Text = Text { min: 0, max: 256, pattern: None };
static STATISTIC: Text = Text { min: 1, max: 64, pattern: None };

const PERIOD: Shape = Shape::Integer(1, 31_536_000);
const UNIT: Shape = Shape::Word(&[
    "Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits",
    "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count", "Bytes/Second", "Kilobytes/Second",
    "Megabytes/Second", "Gigabytes/Second", "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second",
    "Gigabits/Second", "Terabits/Second", "Count/Second", "None",
]);
const STATE: Shape = Shape::Word(&["OK", "ALARM", "INSUFFICIENT_DATA"]);
const SCAN: Shape = Shape::Word(&["TimestampDescending", "TimestampAscending"]);
const NAMES: Shape = Shape::List(&Shape::Text(&NAME), 0, 100);
const ACTIONS: Shape = Shape::List(&Shape::Text(&ACTION), 0, 5);

static DIMENSION: &[Member] =
    &[Member::required("Name", Shape::Text(&NAME)), Member::required("Value", Shape::Text(&VALUE))];
const DIMENSIONS: Shape = Shape::List(&Shape::Structure(DIMENSION), 0, 30);

static STATISTIC_SET: &[Member] = &[
    Member::required("SampleCount", Shape::Double),
    Member::required("Sum", Shape::Double),
    Member::required("Minimum", Shape::Double),
    Member::required("Maximum", Shape::Double),
];
static DATUM: &[Member] = &[
    Member::required("MetricName", Shape::Text(&NAME)),
    Member::optional("Dimensions", DIMENSIONS),
    Member::optional("Timestamp", Shape::Timestamp),
    Member::optional("Value", Shape::Double),
    Member::optional("StatisticValues", Shape::Structure(STATISTIC_SET)),
    Member::optional("Values", Shape::List(&Shape::Double, 0, 150)),
    Member::optional("Counts", Shape::List(&Shape::Double, 0, 150)),
    Member::optional("Unit", UNIT),
    Member::optional("StorageResolution", Shape::Integer(1, 60)),
];
/// `PutMetricData`. At most 1000 samples, as CloudWatch documents it.
pub static PUT_METRIC_DATA: &[Member] = &[
    Member::required("Namespace", Shape::Text(&NAMESPACE)),
    Member::optional("MetricData", Shape::List(&Shape::Structure(DATUM), 0, 1000)),
];

static METRIC: &[Member] = &[
    Member::required("Namespace", Shape::Text(&NAMESPACE)),
    Member::required("MetricName", Shape::Text(&NAME)),
    Member::optional("Dimensions", DIMENSIONS),
];
static METRIC_STAT: &[Member] = &[
    Member::required("Metric", Shape::Structure(METRIC)),
    Member::required("Period", PERIOD),
    Member::required("Stat", Shape::Text(&STATISTIC)),
    Member::optional("Unit", UNIT),
];
static METRIC_DATA_QUERY: &[Member] = &[
    Member::required("Id", Shape::Text(&ID)),
    Member::optional("MetricStat", Shape::Structure(METRIC_STAT)),
    Member::optional("Expression", Shape::Text(&EXPRESSION)),
    Member::optional("Label", Shape::Text(&LABEL)),
    Member::optional("ReturnData", Shape::Boolean),
    Member::optional("Period", PERIOD),
];
const QUERIES: Shape = Shape::List(&Shape::Structure(METRIC_DATA_QUERY), 0, 500);
/// `GetMetricData`.
pub static GET_METRIC_DATA: &[Member] = &[
    Member::required("MetricDataQueries", QUERIES),
    Member::required("StartTime", Shape::Timestamp),
    Member::required("EndTime", Shape::Timestamp),
    Member::optional("NextToken", Shape::Text(&NEXT_TOKEN)),
    Member::optional("ScanBy", SCAN),
    Member::optional("MaxDatapoints", Shape::Integer(1, 100_800)),
];

/// `GetMetricStatistics`.
pub static GET_METRIC_STATISTICS: &[Member] = &[
    Member::required("Namespace", Shape::Text(&NAMESPACE)),
    Member::required("MetricName", Shape::Text(&NAME)),
    Member::optional("Dimensions", DIMENSIONS),
    Member::required("StartTime", Shape::Timestamp),
    Member::required("EndTime", Shape::Timestamp),
    Member::required("Period", PERIOD),
    Member::optional(
        "Statistics",
        Shape::List(&Shape::Word(&["SampleCount", "Average", "Sum", "Minimum", "Maximum"]), 1, 5),
    ),
    Member::optional("ExtendedStatistics", Shape::List(&Shape::Text(&STATISTIC), 1, 10)),
    Member::optional("Unit", UNIT),
];

static DIMENSION_FILTER: &[Member] =
    &[Member::required("Name", Shape::Text(&NAME)), Member::optional("Value", Shape::Text(&VALUE))];
/// `ListMetrics`.
pub static LIST_METRICS: &[Member] = &[
    Member::optional("Namespace", Shape::Text(&NAMESPACE)),
    Member::optional("MetricName", Shape::Text(&NAME)),
    Member::optional("Dimensions", Shape::List(&Shape::Structure(DIMENSION_FILTER), 0, 10)),
    Member::optional("NextToken", Shape::Text(&NEXT_TOKEN)),
    Member::optional("RecentlyActive", Shape::Word(&["PT3H"])),
];

static TAG: &[Member] =
    &[Member::required("Key", Shape::Text(&TAG_KEY)), Member::required("Value", Shape::Text(&TAG_VALUE))];
/// `PutMetricAlarm`.
pub static PUT_METRIC_ALARM: &[Member] = &[
    Member::required("AlarmName", Shape::Text(&NAME)),
    Member::optional("AlarmDescription", Shape::Text(&DESCRIPTION)),
    Member::optional("ActionsEnabled", Shape::Boolean),
    Member::optional("OKActions", ACTIONS),
    Member::optional("AlarmActions", ACTIONS),
    Member::optional("InsufficientDataActions", ACTIONS),
    Member::optional("MetricName", Shape::Text(&NAME)),
    Member::optional("Namespace", Shape::Text(&NAMESPACE)),
    Member::optional("Statistic", Shape::Word(&["SampleCount", "Average", "Sum", "Minimum", "Maximum"])),
    Member::optional("ExtendedStatistic", Shape::Text(&STATISTIC)),
    Member::optional("Dimensions", DIMENSIONS),
    Member::optional("Period", PERIOD),
    Member::optional("Unit", UNIT),
    Member::required("EvaluationPeriods", Shape::Integer(1, 10_080)),
    Member::optional("DatapointsToAlarm", Shape::Integer(1, 10_080)),
    Member::optional("Threshold", Shape::Double),
    Member::required(
        "ComparisonOperator",
        Shape::Word(&[
            "GreaterThanOrEqualToThreshold",
            "GreaterThanThreshold",
            "LessThanThreshold",
            "LessThanOrEqualToThreshold",
            "LessThanLowerOrGreaterThanUpperThreshold",
            "LessThanLowerThreshold",
            "GreaterThanUpperThreshold",
        ]),
    ),
    Member::optional("TreatMissingData", Shape::Word(&["missing", "ignore", "breaching", "notBreaching"])),
    Member::optional("EvaluateLowSampleCountPercentile", Shape::Text(&NAME)),
    Member::optional("Metrics", QUERIES),
    Member::optional("Tags", Shape::List(&Shape::Structure(TAG), 0, 50)),
    Member::optional("ThresholdMetricId", Shape::Text(&NAME)),
];
/// `DescribeAlarms`.
pub static DESCRIBE_ALARMS: &[Member] = &[
    Member::optional("AlarmNames", NAMES),
    Member::optional("AlarmNamePrefix", Shape::Text(&NAME)),
    Member::optional("AlarmTypes", Shape::List(&Shape::Word(&["CompositeAlarm", "MetricAlarm"]), 0, 2)),
    Member::optional("ChildrenOfAlarmName", Shape::Text(&NAME)),
    Member::optional("ParentsOfAlarmName", Shape::Text(&NAME)),
    Member::optional("StateValue", STATE),
    Member::optional("ActionPrefix", Shape::Text(&ACTION)),
    Member::optional("MaxRecords", Shape::Integer(1, 100)),
    Member::optional("NextToken", Shape::Text(&NEXT_TOKEN)),
];
/// `DescribeAlarmsForMetric`.
pub static DESCRIBE_ALARMS_FOR_METRIC: &[Member] = &[
    Member::required("MetricName", Shape::Text(&NAME)),
    Member::required("Namespace", Shape::Text(&NAMESPACE)),
    Member::optional("Statistic", Shape::Word(&["SampleCount", "Average", "Sum", "Minimum", "Maximum"])),
    Member::optional("Dimensions", DIMENSIONS),
    Member::optional("Period", PERIOD),
    Member::optional("Unit", UNIT),
];
/// `DescribeAlarmHistory`.
pub static DESCRIBE_ALARM_HISTORY: &[Member] = &[
    Member::optional("AlarmName", Shape::Text(&NAME)),
    Member::optional("AlarmTypes", Shape::List(&Shape::Word(&["CompositeAlarm", "MetricAlarm"]), 0, 2)),
    Member::optional("HistoryItemType", Shape::Word(&["ConfigurationUpdate", "StateUpdate", "Action"])),
    Member::optional("StartDate", Shape::Timestamp),
    Member::optional("EndDate", Shape::Timestamp),
    Member::optional("MaxRecords", Shape::Integer(1, 100)),
    Member::optional("NextToken", Shape::Text(&NEXT_TOKEN)),
    Member::optional("ScanBy", SCAN),
];
/// `DeleteAlarms`, `EnableAlarmActions`, `DisableAlarmActions`.
pub static ALARM_NAMES: &[Member] = &[Member::required("AlarmNames", NAMES)];
/// `SetAlarmState`.
pub static SET_ALARM_STATE: &[Member] = &[
    Member::required("AlarmName", Shape::Text(&NAME)),
    Member::required("StateValue", STATE),
    Member::required("StateReason", Shape::Text(&REASON)),
    Member::optional("StateReasonData", Shape::Text(&REASON_DATA)),
];
