// SPDX-License-Identifier: MIT
// The Gregorian calendar, as a real-time clock needs it.
#pragma once

#include <cstdint>

namespace hv {

struct CivilDate {
    std::int32_t year;
    unsigned month;  ///< 1 to 12
    unsigned day;    ///< 1 to 31
};

/// Days since 1970-01-01. A day beyond the month's end counts on into the next.
constexpr std::int64_t days_of(const CivilDate& date) {
    // Years begin in March, so that the leap day is the last; 400 of them have 146,097 days.
    const std::int64_t year = std::int64_t{date.year} - (date.month <= 2 ? 1 : 0);
    const std::int64_t era = (year >= 0 ? year : year - 399) / 400;
    const std::int64_t year_of_era = year - era * 400;
    const std::int64_t month = (date.month + 9) % 12;
    const std::int64_t day_of_year = (153 * month + 2) / 5 + date.day - 1;
    return era * 146'097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719'468;
}

constexpr CivilDate date_of(std::int64_t days) {
    const std::int64_t shifted = days + 719'468;
    const std::int64_t era = (shifted >= 0 ? shifted : shifted - 146'096) / 146'097;
    const std::int64_t day_of_era = shifted - era * 146'097;
    const std::int64_t year_of_era =
        (day_of_era - day_of_era / 1'460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
    const std::int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    const std::int64_t month = (5 * day_of_year + 2) / 153;
    const std::int64_t day = day_of_year - (153 * month + 2) / 5 + 1;
    const std::int64_t calendar_month = month < 10 ? month + 3 : month - 9;
    const std::int64_t year = year_of_era + era * 400 + (calendar_month <= 2 ? 1 : 0);
    return {static_cast<std::int32_t>(year), static_cast<unsigned>(calendar_month),
            static_cast<unsigned>(day)};
}

/// 1 is Sunday, as real-time clocks count.
constexpr unsigned weekday_of(std::int64_t days) {
    const std::int64_t since_sunday = (days + 4) % 7;  // 1970-01-01 was a Thursday
    return static_cast<unsigned>(since_sunday < 0 ? since_sunday + 7 : since_sunday) + 1;
}

}  // namespace hv
