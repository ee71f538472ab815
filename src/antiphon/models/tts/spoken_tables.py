"""Words of written English that are spoken differently: plain tables."""

from __future__ import annotations

ABBREVIATIONS = {
    "mr": "Mister",
    "mrs": "Missus",
    "ms": "Miz",
    "dr": "Doctor",
    "prof": "Professor",
    "gen": "General",
    "sen": "Senator",
    "rep": "Representative",
    "jr": "Junior",
    "sr": "Senior",
    "inc": "Incorporated",
    "ltd": "Limited",
    "corp": "Corporation",
    "dept": "Department",
    "approx": "approximately",
    "vs": "versus",
    "etc": "et cetera",
    "est": "estimated",
    "e.g": "for example",
    "i.e": "that is",
    "a.k.a": "also known as",
    "ave": "Avenue",
    "blvd": "Boulevard",
    "rd": "Road",
    "apt": "Apartment",
    "jan": "January",
    "feb": "February",
    "aug": "August",
    "sept": "September",
    "oct": "October",
    "nov": "November",
    "dec": "December",
}
"""Written with a full stop at the end, which goes."""

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

CURRENCIES = {
    "$": ("dollar", "cent"),
    "€": ("euro", "cent"),
    "£": ("pound", "penny"),
    "¥": ("yen", ""),
    "₹": ("rupee", "paisa"),
    "USD": ("dollar", "cent"),
    "EUR": ("euro", "cent"),
    "GBP": ("pound", "penny"),
    "JPY": ("yen", ""),
    "CHF": ("franc", "centime"),
}
IRREGULAR_PLURALS = {"penny": "pence", "yen": "yen", "paisa": "paise"}

MAGNITUDES = {
    "k": "thousand",
    "m": "million",
    "mn": "million",
    "b": "billion",
    "bn": "billion",
    "t": "trillion",
    "tn": "trillion",
    "thousand": "thousand",
    "million": "million",
    "billion": "billion",
    "trillion": "trillion",
}

UNITS = {
    "km/h": "kilometer per hour",
    "kph": "kilometer per hour",
    "mph": "mile per hour",
    "m/s": "meter per second",
    "°C": "degree Celsius",
    "°F": "degree Fahrenheit",
    "°": "degree",
    "km²": "square kilometer",
    "km2": "square kilometer",
    "m²": "square meter",
    "m2": "square meter",
    "m³": "cubic meter",
    "km": "kilometer",
    "cm": "centimeter",
    "mm": "millimeter",
    "m": "meter",
    "mi": "mile",
    "ft": "foot",
    "yd": "yard",
    "kg": "kilogram",
    "mg": "milligram",
    "g": "gram",
    "lbs": "pound",
    "lb": "pound",
    "oz": "ounce",
    "ml": "milliliter",
    "mL": "milliliter",
    "l": "liter",
    "L": "liter",
    "kWh": "kilowatt hour",
    "kW": "kilowatt",
    "MW": "megawatt",
    "W": "watt",
    "kV": "kilovolt",
    "V": "volt",
    "mA": "milliamp",
    "GHz": "gigahertz",
    "MHz": "megahertz",
    "kHz": "kilohertz",
    "Hz": "hertz",
    "dB": "decibel",
    "KB": "kilobyte",
    "kB": "kilobyte",
    "MB": "megabyte",
    "GB": "gigabyte",
    "TB": "terabyte",
    "kbps": "kilobit per second",
    "Mbps": "megabit per second",
    "Gbps": "gigabit per second",
    "ms": "millisecond",
    "sec": "second",
    "s": "second",
    "min": "minute",
    "hrs": "hour",
    "hr": "hour",
    "h": "hour",
    "fps": "frame per second",
    "rpm": "revolution per minute",
    "px": "pixel",
}
UNIT_PLURALS = {
    "foot": "feet",
    "hertz": "hertz",
    "kilohertz": "kilohertz",
    "megahertz": "megahertz",
    "gigahertz": "gigahertz",
}

TOP_LEVEL_DOMAINS = (
    "com|org|net|edu|gov|info|biz|dev|app|io|ai|me|tv|co|cloud|tech"
    "|uk|us|ca|au|de|fr|es|it|nl|eu|ch|at|in|jp|cn"
)

SPOKEN_AS_WORDS = frozenset(
    """
    NASA NATO UNESCO UNICEF OPEC FIFA UEFA AIDS COVID LASER RADAR SCUBA SIM PIN RAM ROM GIF
    LAN WAN ZIP ASAP CAPTCHA BIOS CAD DOS IKEA LEGO NASDAQ SWAT TED YOLO FOMO IMAX ECHO
    """.split()
)
"""Acronyms that are read like a word."""

SPOKEN_LIKE = {
    "JSON": "jason",
    "YAML": "yammel",
    "JPEG": "jay-peg",
    "GUI": "gooey",
    "SaaS": "sass",
    "iOS": "I-O-S",
    "PhD": "P-H-D",
    "OK": "okay",
    "Wi-Fi": "why-fie",
    "WiFi": "why-fie",
    "Wifi": "why-fie",
    "wifi": "why-fie",
}

SHOUTED = frozenset(
    """
    A ABOUT AFTER AGAIN ALL ALSO ALWAYS AM AN AND ANY ARE AS ASK AT BACK BAD BE BEEN BEFORE
    BEST BIG BUT BUY BY CALL CAN CAUTION COME DAY DID DO DOES DONE DOWN EACH EVEN EVER EVERY
    FAST FEW FIRST FOR FREE FROM FULL GET GIVE GO GOOD GREAT HAD HALF HAS HAVE HE HELLO HELP
    HER HERE HEY HI HIM HIS HOT HOW IF IN INTO IS IT ITS JUST KEEP KNOW LAST LESS LET LIKE
    LONG LOOK LOT LOVE MADE MAKE MANY MAY MORE MOST MUCH MUST MY NEED NEVER NEW NEXT NICE NO
    NOT NOTE NOW OF OFF OH OLD ON ONE ONLY OPEN OR OUR OUT OVER OWN PART PER PLAY PLEASE PLUS
    PUT READ REAL RED RUN SAFE SAID SALE SAME SAY SEE SEND SET SHE SO SOME SOON STAY STEP
    STILL STOP SUCH SURE TAKE TELL TEN THAN THAT THE THEM THEN THERE THEY THING THIS TIME TIP
    TO TOO TOP TRUE TRY TWO UP USE VERY WAIT WANT WAS WAY WE WELL WERE WHAT WHEN WHERE WHICH
    WHY WILL WITH WORK WOW YEAR YES YET YOU YOUR ZERO
    """.split()
)
"""Words in capitals for emphasis: spoken as the words they are, not spelled."""

SYMBOLS = {
    "&": " and ",
    "=": " equals ",
    "×": " times ",
    "÷": " divided by ",
    "≈": " about ",
    "~": " about ",
    "±": " plus or minus ",
    "≤": " at most ",
    "≥": " at least ",
    "<": " less than ",
    ">": " greater than ",
    "→": " to ",
    "%": " percent ",
    "°": " degrees ",
    "©": " copyright ",
    "§": " section ",
    "µ": " micro ",
    "π": " pi ",
    "Ω": " ohm ",
    "\\": " backslash ",
    "^": " to the power of ",
    "$": " dollar ",
    "€": " euro ",
    "£": " pound ",
}
