"""Cron expressions: what they mean, and when one came due last, in every zone and over every change of its clock."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model.schedule import ScheduleError, last_tick, parse_cron, ticks, zone_of

MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("cron", "zone", "at", "expected"),
    [
        pytest.param("* * * * *", "Etc/UTC", "2026-05-05T10:00:59Z", "2026-05-05T10:00Z", id="a minute has begun"),
        pytest.param("0 6 * * *", "Etc/UTC", "2026-05-05T06:00:00Z", "2026-05-05T06:00Z", id="exactly then counts"),
        pytest.param("0 6 * * *", "Etc/UTC", "2026-05-05T05:59:59Z", "2026-05-04T06:00Z", id="a second early: a day"),
        pytest.param("0 6 * * *", "Europe/Berlin", "2026-05-05T06:30:00Z", "2026-05-05T04:00Z", id="in its own zone"),
        pytest.param("*/20 * * * *", "Etc/UTC", "2026-05-05T06:59:00Z", "2026-05-05T06:40Z", id="every 20 minutes"),
        pytest.param("0 9-17/4 * * *", "Etc/UTC", "2026-05-05T16:00:00Z", "2026-05-05T13:00Z", id="a range's step"),
        pytest.param("0 0 1 JAN *", "Etc/UTC", "2026-05-05T00:00:00Z", "2026-01-01T00:00Z", id="a month has a name"),
        pytest.param("0 0 * * MON-FRI", "Etc/UTC", "2026-05-03T12:00:00Z", "2026-05-01T00:00Z", id="not on Sunday"),
        pytest.param("0 0 * * 7", "Etc/UTC", "2026-05-05T12:00:00Z", "2026-05-03T00:00Z", id="7 is Sunday"),
        pytest.param("0 0 * * 0", "Etc/UTC", "2026-05-05T12:00:00Z", "2026-05-03T00:00Z", id="0 is Sunday"),
        pytest.param("0 0 13 * 5", "Etc/UTC", "2026-05-10T12:00:00Z", "2026-05-08T00:00Z", id="either day: a Friday"),
        pytest.param("0 0 13 * 5", "Etc/UTC", "2026-05-14T12:00:00Z", "2026-05-13T00:00Z", id="either day: the 13th"),
        pytest.param("0 0 29 2 *", "Etc/UTC", "2026-05-05T00:00:00Z", "2024-02-29T00:00Z", id="a leap day"),
        pytest.param("0 0 29 2 *", "Etc/UTC", "2103-12-31T00:00:00Z", "2096-02-29T00:00Z", id="2100 has no leap day"),
        # Berlin puts its clock from 02:00 to 03:00 on 29 March 2026, and from 03:00 to 02:00 on 25 October.
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-03-29T12:00:00Z", "2026-03-29T01:00Z", id="a skipped time"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-03-29T00:59:00Z", "2026-03-28T01:30Z", id="not yet skipped"),
        pytest.param("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:29:00Z", "2026-03-29T01:00Z", id="03:00, once"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-10-25T01:29:00Z", "2026-10-25T00:30Z", id="twice: the first"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:30Z", id="twice: the other"),
        pytest.param("0 0 30 12 *", "Pacific/Apia", "2012-06-01T00:00:00Z", "2011-12-30T10:00Z", id="a skipped day"),
        pytest.param(
            "30 23 * * *", "America/Havana", "2026-11-01T04:59:00Z", "2026-11-01T03:30Z", id="before midnight"
        ),
        pytest.param("15 0 * * *", "America/Havana", "2026-11-01T05:15:00Z", "2026-11-01T05:15Z", id="00:15 again"),
        pytest.param("45 1 * * *", "Australia/Lord_Howe", "2026-04-05T12:00Z", "2026-04-04T15:15Z", id="half an hour"),
    ],
)
def test_the_last_tick(cron, zone, at, expected):
    assert last_tick(cron, zone, utc(at)) == utc(expected)


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        pytest.param("0 6 * *", "is not a cron expression; write minute, hour, day of the month", id="four fields"),
        pytest.param("0  6 * * *", "is not a cron expression", id="two spaces"),
        pytest.param("", "is not a cron expression", id="nothing"),
        pytest.param("@daily", "is not a cron expression", id="a nickname"),
        pytest.param("60 * * * *", '"60" is not a minute; allowed: 0 to 59', id="minute 60"),
        pytest.param("0 24 * * *", '"24" is not an hour; allowed: 0 to 23', id="hour 24"),
        pytest.param("0 0 0 * *", '"0" is not a day of the month; allowed: 1 to 31', id="day 0"),
        pytest.param("0 0 * 13 *", '"13" is not a month; allowed: 1 to 12', id="month 13"),
        pytest.param("0 0 * * 8", '"8" is not a day of the week; allowed: 0 to 7', id="day 8 of the week"),
        pytest.param("0 0 * jan *", '"jan" is not a month; write', id="names are in capitals"),
        pytest.param("0 0 L * *", '"L" is not a day of the month; write', id="no last day"),
        pytest.param("0 0 * * 5#2", '"5#2" is not a day of the week; write', id="no second Friday"),
        pytest.param("5/10 * * * *", '"5/10" is not a minute; write', id="a step is of a range"),
        pytest.param("*/0 * * * *", '"*/0" has a step of 0', id="no step"),
        pytest.param("30-10 * * * *", '"30-10" runs backwards', id="backwards"),
        pytest.param("1,,2 * * * *", '"1,,2" is not a minute', id="a hole in a list"),
        pytest.param("٣ * * * *", '"٣" is not a minute', id="another alphabet's digit"),
        pytest.param("0 0 31 4,6 *", "is never due; no such month has such a day", id="31 April or June"),
        pytest.param("0 0 */2 * 1", "has */ beside another day; write the range, as in 1-31/2", id="what is meant?"),
    ],
)
def test_what_is_no_cron_expression(cron, message):
    with pytest.raises(ScheduleError) as caught:
        parse_cron(cron)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "Europe/Atlantis",
        "Europe",
        "",
        "/etc/passwd",
        "../UTC",
        "Europe/Berlin\n",
        "a" * 300,
        "localtime",
        "posixrules",
        "Factory",
    ],
)
def test_what_is_no_time_zone(name):
    with pytest.raises(ScheduleError, match="is not a time zone; write an IANA name"):
        zone_of(name)


# ---- against the definition itself: minute by minute ---------------------------------------------------

ZONES = (
    *("Etc/UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Asia/Beirut", "Australia/Lord_Howe"),
    *("Asia/Kathmandu", "Africa/Casablanca", "America/Santiago", "Pacific/Apia", "Africa/Cairo"),
)


def is_tick(cron: str, zone: ZoneInfo, tick: datetime) -> bool:
    """Whether the wall clock came to a minute of `cron` within the minute before `tick`."""
    wanted = parse_cron(cron)
    wall = tick.astimezone(zone).replace(tzinfo=None)
    before = (tick - MINUTE).astimezone(zone).replace(tzinfo=None)
    passed = max(1, (wall - before) // MINUTE)
    return any(wanted.is_at(wall - MINUTE * number) for number in range(passed))


def changes(zone: ZoneInfo, year: int) -> list[datetime]:
    """The hours of a year in which a zone's clock is put forward or back."""
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=number) for number in range(366 * 24)]
    return [
        hour
        for hour in hours
        if hour.astimezone(zone).utcoffset() != (hour + timedelta(hours=1)).astimezone(zone).utcoffset()
    ]


def spans(first: int, last: int) -> st.SearchStrategy[str]:
    number = st.integers(first, last)
    ranges = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    steps = st.tuples(ranges | st.just("*"), st.integers(1, last)).map(lambda parts: f"{parts[0]}/{parts[1]}")
    return st.lists(number.map(str) | ranges | steps, min_size=1, max_size=3).map(",".join)


crons = st.tuples(
    spans(0, 59) | st.just("*"), spans(0, 23) | st.just("*"), st.just("*"), st.just("*"), spans(0, 7) | st.just("*")
).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(crons, st.sampled_from(ZONES), st.integers(2008, 2030), st.data())
def test_it_is_the_last_minute_that_is_a_tick_minute_by_minute(cron, name, year, data):
    zone = ZoneInfo(name)
    around = changes(zone, year) or [datetime(year, 6, 1, tzinfo=UTC)]
    at = data.draw(st.sampled_from(around)) + timedelta(minutes=data.draw(st.integers(-300, 3000)))
    tick = last_tick(cron, name, at)
    assert tick <= at
    assert is_tick(cron, zone, tick)
    minute = at.replace(second=0)
    for _ in range(2000):
        if minute <= tick:
            break
        assert not is_tick(cron, zone, minute)
        minute -= MINUTE


@settings(deadline=None)
@given(crons, st.sampled_from(ZONES), st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))
def test_whoever_asks_later_gets_the_same_tick_or_a_later_one(cron, name, at):
    tick = last_tick(cron, name, at)
    assert last_tick(cron, name, tick) == tick
    assert last_tick(cron, name, tick + timedelta(seconds=59)) == tick
    assert last_tick(cron, name, at + timedelta(hours=7)) >= tick
    assert tick.tzinfo is UTC
    assert (tick.second, tick.microsecond) == (0, 0)


def test_every_day_that_there_is_comes_back_within_the_years_that_are_searched():
    """29 February waits longest: from 1896 to 1904, and from 2096 to 2104."""
    late = datetime(2104, 2, 28, 23, 59, tzinfo=UTC)
    assert last_tick("0 0 29 2 *", "Etc/UTC", late).date() == date(2096, 2, 29)


# -- all times of a while ---------------------------------------------------------------------------------


def test_the_times_after_one_come_in_order_without_it_and_with_the_last():
    found = ticks("0 */6 * * *", "Etc/UTC", utc("2026-05-05T06:00Z"), utc("2026-05-06T06:00Z"))
    assert [f"{each:%d %H:%M}" for each in found] == ["05 12:00", "05 18:00", "06 00:00", "06 06:00"]


def test_the_times_of_a_night_that_comes_twice_are_twice_and_in_order():
    found = ticks("30 1-3 * * *", "Europe/Berlin", utc("2026-10-24T22:00Z"), utc("2026-10-25T12:00Z"))
    assert [f"{each:%H:%M}" for each in found] == ["23:30", "00:30", "01:30", "02:30"]


def test_minutes_that_are_skipped_are_one_time():
    found = ticks("*/20 2 * * *", "Europe/Berlin", utc("2026-03-28T12:00Z"), utc("2026-03-29T12:00Z"))
    assert list(found) == [utc("2026-03-29T01:00Z")]


def test_a_clock_that_is_put_back_over_midnight_leaves_the_times_in_order():
    found = list(ticks("15 0,23 * * *", "America/Havana", utc("2026-10-31T12:00Z"), utc("2026-11-01T12:00Z")))
    assert found == sorted(found) == [utc("2026-11-01T03:15Z"), utc("2026-11-01T04:15Z"), utc("2026-11-01T05:15Z")]


def test_they_go_on_where_no_end_is_given():
    found = ticks("0 0 29 2 *", "Etc/UTC", utc("2095-01-01T00:00Z"))
    assert [next(found), next(found)] == [utc("2096-02-29T00:00Z"), utc("2104-02-29T00:00Z")]


def test_they_end_with_the_calendar():
    assert list(ticks("0 0 31 12 *", "Etc/UTC", utc("9996-01-01T00:00Z"))) == [
        utc(f"{year}-12-31T00:00Z") for year in (9996, 9997, 9998)
    ]


@pytest.mark.parametrize("cron", ["* * *", "0 0 30 2 *"])
def test_a_wrong_schedule_has_no_times(cron):
    with pytest.raises(ScheduleError):
        next(ticks(cron, "Etc/UTC", utc("2026-01-01T00:00Z")))


@settings(max_examples=30, deadline=None)
@given(
    cron=st.sampled_from(["17 */5 * * *", "30 2 * * *", "0 0 * * MON", "45 1,23 1-7 * *"]),
    zone=st.sampled_from(["Europe/Berlin", "America/Havana", "Australia/Lord_Howe", "Pacific/Apia", "Etc/UTC"]),
    at=st.datetimes(datetime(2011, 11, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    hours=st.integers(1, 24 * 8),
)
def test_each_time_is_the_last_one_at_itself_and_the_one_before_it_a_second_earlier(cron, zone, at, hours):
    until = at + timedelta(hours=hours)
    before = last_tick(cron, zone, at)
    for tick in ticks(cron, zone, at, until):
        assert last_tick(cron, zone, tick) == tick > at
        assert last_tick(cron, zone, tick - timedelta(seconds=1)) == before
        before = tick
    assert last_tick(cron, zone, until) == before
