"""The classes of fMoW, the orders in which others number them, and the challenge's weights."""

#: What a box of none of the classes is called. It is no class of protocols B and C.
FALSE_DETECTION = "false_detection"
#: What older files call it.
OLD_FALSE_DETECTION = "unknown"

#: The 62 classes, in the data set's (alphabetical) order.
CLASSES: tuple[str, ...] = (
    "airport", "airport_hangar", "airport_terminal", "amusement_park", "aquaculture", "archaeological_site",
    "barn", "border_checkpoint", "burial_site", "car_dealership", "construction_site", "crop_field", "dam",
    "debris_or_rubble", "educational_institution", "electric_substation", "factory_or_powerplant",
    "fire_station", "flooded_road", "fountain", "gas_station", "golf_course", "ground_transportation_station",
    "helipad", "hospital", "impoverished_settlement", "interchange", "lake_or_pond", "lighthouse",
    "military_facility", "multi-unit_residential", "nuclear_powerplant", "office_building",
    "oil_or_gas_facility", "park", "parking_lot_or_garage", "place_of_worship", "police_station", "port",
    "prison", "race_track", "railway_bridge", "recreational_facility", "road_bridge", "runway", "shipyard",
    "shopping_mall", "single-unit_residential", "smokestack", "solar_farm", "space_facility", "stadium",
    "storage_tank", "surface_mine", "swimming_pool", "toll_booth", "tower", "tunnel_opening",
    "waste_disposal", "water_treatment_facility", "wind_farm", "zoo",
)  # fmt: skip


def _late_settlement() -> tuple[str, ...]:
    late = "impoverished_settlement"
    rest = [name for name in CLASSES if name != late]
    at = rest.index("recreational_facility") + 1
    return (*rest[:at], late, *rest[at:])


#: The order of TNet's logits: alphabetical but for ``impoverished_settlement``, which is number 42.
TNET_ORDER: tuple[str, ...] = _late_settlement()
#: The order of the challenge baseline's logits: ``false_detection`` first, then TNet's order.
BASELINE_ORDER: tuple[str, ...] = (FALSE_DETECTION, *TNET_ORDER)

_LIGHT = (
    "wind_farm", "tunnel_opening", "solar_farm", "nuclear_powerplant", "military_facility", "crop_field",
    "airport", "flooded_road", "debris_or_rubble", "single-unit_residential",
)  # fmt: skip
_HEAVY = (
    "border_checkpoint", "construction_site", "educational_institution", "factory_or_powerplant",
    "fire_station", "police_station", "gas_station", "smokestack", "tower", "road_bridge",
)  # fmt: skip

#: The challenge's weight of each category.
WEIGHTS: dict[str, float] = (
    dict.fromkeys(CLASSES, 1.0)
    | dict.fromkeys(_LIGHT, 0.6)
    | dict.fromkeys(_HEAVY, 1.4)
    | {FALSE_DETECTION: 0.0}
)
