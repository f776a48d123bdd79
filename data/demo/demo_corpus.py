"""The sentences the demo model learns: English, Vietnamese and Chinese said three times by one template.

Reads nothing and writes nothing: a Template with its fillers gives a Meaning, and a Meaning gives its
sentence in each language. Everything here was written for this repository.

How a template is written
    {S}        the filler of slot S in the language of the template
    {S.be}     another form of it: be, gen ("my", "his", "Ly Quoc Dan's"), a ("an engineer"), many ("books")
    {S~like}   English verb that agrees with S: "I like", "she likes"; {V~} is the filler V, agreeing with S
In Chinese a blank only says where a word ends (the tokenizer learns its Chinese words from it); it is not
part of the sentence.
"""

import hashlib
import random
import re
import unicodedata
from dataclasses import dataclass
from functools import cache

LANGUAGES = ("en", "vi", "zh")
LANGUAGE_NAMES = {"en": "English", "vi": "Vietnamese", "zh": "Chinese"}
DIRECTIONS = tuple(f"{a}>{b}" for a in LANGUAGES for b in LANGUAGES if a != b)
DEMO_NAME = "Lý Quốc Dân"
HELDOUT_ONE_IN = 16

Filler = dict[str, str]

# --- names: a syllable, its Sino-Vietnamese character; English is the syllable without its marks ------------

SURNAMES = """
Nguyễn 阮, Trần 陈, Lê 黎, Phạm 范, Hoàng 黄, Phan 潘, Vũ 武, Đặng 邓, Bùi 裴, Hồ 胡, Ngô 吴, Dương 杨,
Lý 李, Đinh 丁, Trương 张, Lâm 林, Cao 高, Mai 梅, Đào 陶, Trịnh 郑, Hà 何, Lương 梁, Vương 王"""
GIVEN = """
Quốc 国, Dân 民, Minh 明, Văn 文, Đức 德, Hùng 雄, Dũng 勇, Tuấn 俊, Anh 英, Hải 海, Long 龙, Nam 南, Sơn 山,
Thanh 清, Lan 兰, Hoa 花, Hương 香, Thu 秋, Xuân 春, Ngọc 玉, Kim 金, Linh 玲, Thảo 草, Phương 芳, Tuyết 雪,
Nguyệt 月, Hồng 红, Bình 平, An 安, Phúc 福, Trí 智, Nhân 仁, Nghĩa 义, Hiếu 孝, Trung 忠, Tâm 心, Quang 光,
Huy 辉, Khánh 庆, Bảo 宝, Gia 家, Hữu 有, Việt 越, Thắng 胜, Cường 强, Kiên 坚, Thiện 善, Giang 江, Đông 东,
Hạnh 幸, Vinh 荣, Phú 富, Lợi 利, Tiến 进, Đạt 达, Tài 才, Thái 泰, Hiền 贤"""


def without_marks(text: str) -> str:
    """Vietnamese letters to plain ASCII letters.

    >>> without_marks("Đặng Quốc Dân")
    'Dang Quoc Dan'
    """
    bare = unicodedata.normalize("NFD", text.replace("Đ", "D").replace("đ", "d"))
    return "".join(c for c in bare if not unicodedata.combining(c))


@cache
def syllables(table: str) -> list[tuple[str, str]]:
    return [tuple(item.split()) for item in table.replace("\n", " ").split(",")]


CHARACTERS = dict(syllables(SURNAMES) + syllables(GIVEN))


@cache
def name(vi: str) -> Filler:
    """A person by the Vietnamese name: en "Ly Quoc Dan", zh "李 国 民"."""
    en = without_marks(vi)
    zh = " ".join(CHARACTERS[s] for s in vi.split())
    return {"en": en, "vi": vi, "zh": zh, "be": "is", "gen": f"{en}'s", "third": "yes"}


# --- words --------------------------------------------------------------------------------------------------

DOUBLED = {"swim": "swimming", "run": "running", "get": "getting"}


def third_person(verb_phrase: str) -> str:
    """'watch films' -> 'watches films'."""
    verb, _, rest = verb_phrase.partition(" ")
    if verb == "have":
        verb = "has"
    elif verb.endswith(("s", "sh", "ch", "x", "z", "o")):
        verb += "es"
    elif verb.endswith("y") and verb[-2] not in "aeiou":
        verb = verb[:-1] + "ies"
    else:
        verb += "s"
    return f"{verb} {rest}".strip()


def ing(verb_phrase: str) -> str:
    """'write letters' -> 'writing letters'."""
    verb, _, rest = verb_phrase.partition(" ")
    verb = DOUBLED.get(verb) or (verb[:-1] if verb.endswith("e") else verb) + "ing"
    return f"{verb} {rest}".strip()


def table(text: str, *columns: str) -> list[Filler]:
    """Lines 'en | vi | zh | more…' as fillers; `columns` name the parts after the third."""
    names = ("en", "vi", "zh", *columns)
    rows = [[part.strip() for part in line.split("|")] for line in text.strip().splitlines()]
    for row in rows:
        if len(row) != len(names):
            raise ValueError(f"{row}: {len(names)} parts expected: {names}")
    return [dict(zip(names, row, strict=True)) for row in rows]


PRONOUNS = table(
    """
    I | tôi | 我 | am | my | no
    you | bạn | 你 | are | your | no
    he | anh ấy | 他 | is | his | yes
    she | cô ấy | 她 | is | her | yes
    we | chúng tôi | 我们 | are | our | no
    they | họ | 他们 | are | their | no""",
    *("be", "gen", "third"),
)
FAMILY = table("""
    my father | bố tôi | 我 爸爸
    my mother | mẹ tôi | 我 妈妈
    my grandfather | ông tôi | 我 爷爷
    my grandmother | bà tôi | 我 奶奶
    my older brother | anh trai tôi | 我 哥哥
    my older sister | chị gái tôi | 我 姐姐
    my younger brother | em trai tôi | 我 弟弟
    my younger sister | em gái tôi | 我 妹妹
    my husband | chồng tôi | 我 丈夫
    my wife | vợ tôi | 我 妻子
    my son | con trai tôi | 我 儿子
    my daughter | con gái tôi | 我 女儿
    my friend | bạn tôi | 我 朋友""")
for _person in FAMILY:
    _person.update(be="is", gen=_person["en"] + "'s", third="yes")

JOBS = table("""
    doctor | bác sĩ | 医生
    teacher | giáo viên | 教师
    engineer | kỹ sư | 工程师
    nurse | y tá | 护士
    farmer | nông dân | 农民
    worker | công nhân | 工人
    driver | tài xế | 司机
    cook | đầu bếp | 厨师
    lawyer | luật sư | 律师
    journalist | nhà báo | 记者
    writer | nhà văn | 作家
    singer | ca sĩ | 歌手
    painter | họa sĩ | 画家
    police officer | cảnh sát | 警察
    scientist | nhà khoa học | 科学家
    accountant | kế toán | 会计
    tailor | thợ may | 裁缝
    interpreter | phiên dịch viên | 翻译
    architect | kiến trúc sư | 建筑师
    musician | nhạc sĩ | 音乐家
    actor | diễn viên | 演员
    pilot | phi công | 飞行员
    university student | sinh viên | 大学生""")
for _job in JOBS:
    _vowel = _job["en"][0] in "aei"
    _job.update(a=("an " if _vowel else "a ") + _job["en"], many=_job["en"] + "s")

RELATIONS = table("""
    friend | bạn | 朋友
    teacher | giáo viên | 老师
    student | học sinh | 学生
    colleague | đồng nghiệp | 同事
    neighbor | hàng xóm | 邻居
    boss | sếp | 老板
    classmate | bạn cùng lớp | 同学""")
CITIES = table("""
    Hanoi | Hà Nội | 河内
    Hue | Huế | 顺化
    Da Nang | Đà Nẵng | 岘港
    Saigon | Sài Gòn | 西贡
    Hai Phong | Hải Phòng | 海防
    Da Lat | Đà Lạt | 大叻
    Nha Trang | Nha Trang | 芽庄
    Can Tho | Cần Thơ | 芹苴
    Vung Tau | Vũng Tàu | 头顿
    Beijing | Bắc Kinh | 北京
    Shanghai | Thượng Hải | 上海
    London | Luân Đôn | 伦敦
    Paris | Paris | 巴黎
    Tokyo | Tokyo | 东京
    Singapore | Singapore | 新加坡""")
COUNTRIES = table("""
    Vietnam | Việt Nam | 越南
    China | Trung Quốc | 中国
    Japan | Nhật Bản | 日本
    South Korea | Hàn Quốc | 韩国
    the United States | Mỹ | 美国
    England | Anh | 英国
    France | Pháp | 法国
    Germany | Đức | 德国
    Thailand | Thái Lan | 泰国
    Laos | Lào | 老挝
    Australia | Úc | 澳大利亚
    Canada | Canada | 加拿大""")
TONGUES = table("""
    English | tiếng Anh | 英语
    Vietnamese | tiếng Việt | 越南语
    Chinese | tiếng Trung | 中文
    Japanese | tiếng Nhật | 日语
    Korean | tiếng Hàn | 韩语
    French | tiếng Pháp | 法语
    German | tiếng Đức | 德语
    Thai | tiếng Thái | 泰语
    Russian | tiếng Nga | 俄语""")
PLACES = table("""
    the school | trường học | 学校
    the market | chợ | 市场
    the hospital | bệnh viện | 医院
    the office | văn phòng | 办公室
    the park | công viên | 公园
    the library | thư viện | 图书馆
    the bank | ngân hàng | 银行
    the restaurant | nhà hàng | 餐厅
    the train station | nhà ga | 火车站
    the airport | sân bay | 机场
    the post office | bưu điện | 邮局
    the supermarket | siêu thị | 超市
    the bookstore | hiệu sách | 书店
    the museum | bảo tàng | 博物馆
    the hotel | khách sạn | 酒店
    the cinema | rạp chiếu phim | 电影院
    the factory | nhà máy | 工厂
    the pharmacy | nhà thuốc | 药店""")
SHOPS = [p for p in PLACES if p["en"] in ("the market", "the supermarket")]
FOODS = table("""
    pho | phở | 河粉
    rice | cơm | 米饭
    bread | bánh mì | 面包
    porridge | cháo | 粥
    noodles | mì | 面条
    chicken | thịt gà | 鸡肉
    beef | thịt bò | 牛肉
    pork | thịt lợn | 猪肉
    fish | cá | 鱼
    shrimp | tôm | 虾
    vegetables | rau | 蔬菜
    tofu | đậu phụ | 豆腐
    apples | táo | 苹果
    bananas | chuối | 香蕉
    oranges | cam | 橙子
    mangoes | xoài | 芒果
    watermelon | dưa hấu | 西瓜
    grapes | nho | 葡萄
    ice cream | kem | 冰淇淋
    spring rolls | nem rán | 春卷
    cake | bánh ngọt | 蛋糕""")
for _food in FOODS:
    _food["be"] = "are" if _food["en"].endswith("s") else "is"
DRINKS = table("""
    water | nước | 水
    coffee | cà phê | 咖啡
    tea | trà | 茶
    milk | sữa | 牛奶
    beer | bia | 啤酒
    orange juice | nước cam | 橙汁
    coconut water | nước dừa | 椰子水
    soy milk | sữa đậu nành | 豆浆""")
THINGS = table(
    """
    book | sách | 书 | quyển | 本
    pen | bút | 笔 | chiếc | 支
    chair | ghế | 椅子 | chiếc | 把
    table | bàn | 桌子 | chiếc | 张
    bicycle | xe đạp | 自行车 | chiếc | 辆
    car | ô tô | 汽车 | chiếc | 辆
    shirt | áo sơ mi | 衬衫 | chiếc | 件
    hat | mũ | 帽子 | chiếc | 顶
    phone | điện thoại | 手机 | chiếc | 部
    computer | máy tính | 电脑 | chiếc | 台
    watch | đồng hồ đeo tay | 手表 | chiếc | 块
    umbrella | ô | 雨伞 | chiếc | 把
    bag | túi | 包 | chiếc | 个
    painting | tranh | 画 | bức | 幅
    lamp | đèn | 台灯 | chiếc | 盏
    dictionary | từ điển | 词典 | quyển | 本""",
    *("cl", "measure"),
)
ANIMALS = table(
    """
    cat | mèo | 猫 | con | 只
    dog | chó | 狗 | con | 只
    duck | vịt | 鸭子 | con | 只
    bird | chim | 鸟 | con | 只
    horse | ngựa | 马 | con | 匹
    cow | bò | 牛 | con | 头
    pig | lợn | 猪 | con | 头""",
    *("cl", "measure"),
)
for _thing in THINGS + ANIMALS:
    _en = _thing["en"]
    _thing["many"] = {"watch": "watches", "dictionary": "dictionaries"}.get(_en, _en + "s")
SMALL_THINGS = [t for t in THINGS if t["en"] not in ("chair", "table", "bicycle", "car", "painting")]
RELATIVES = table(
    """
    child | người con | 孩子 | children
    older brother | anh trai | 哥哥 | older brothers
    older sister | chị gái | 姐姐 | older sisters
    younger brother | em trai | 弟弟 | younger brothers
    younger sister | em gái | 妹妹 | younger sisters
    good friend | người bạn tốt | 好 朋友 | good friends""",
    "many",
)
NUMBERS = table("""
    one | một | 一
    two | hai | 两
    three | ba | 三
    four | bốn | 四
    five | năm | 五
    six | sáu | 六
    seven | bảy | 七
    eight | tám | 八
    nine | chín | 九
    ten | mười | 十""")
POINTERS = table("this | này | 这\nthat | đó | 那")
QUALITIES = table("""
    beautiful | đẹp | 漂亮
    new | mới | 新
    big | to | 大
    small | nhỏ | 小
    expensive | đắt | 贵
    cheap | rẻ | 便宜
    heavy | nặng | 重
    light | nhẹ | 轻
    clean | sạch | 干净
    dirty | bẩn | 脏""")
MOODS = table("""
    tired | mệt | 累
    happy | vui | 高兴
    sad | buồn | 难过
    hungry | đói | 饿
    thirsty | khát | 渴
    busy | bận | 忙
    tall | cao | 高
    young | trẻ | 年轻
    intelligent | thông minh | 聪明
    kind | tốt bụng | 善良
    hardworking | chăm chỉ | 勤奋
    worried | lo lắng | 担心
    healthy | khỏe mạnh | 健康""")
SKILLS = table("""
    swim | bơi | 游泳
    cook | nấu ăn | 做饭
    sing | hát | 唱歌
    dance | nhảy | 跳舞
    draw | vẽ tranh | 画画
    drive | lái xe | 开车
    play football | chơi bóng đá | 踢 足球
    play chess | chơi cờ | 下棋
    play the piano | chơi đàn piano | 弹 钢琴
    play badminton | chơi cầu lông | 打 羽毛球
    ride a bicycle | đi xe đạp | 骑 自行车
    take photos | chụp ảnh | 拍照""")
ACTIONS = SKILLS + table("""
    read books | đọc sách | 看 书
    listen to music | nghe nhạc | 听 音乐
    watch television | xem ti vi | 看 电视
    watch movies | xem phim | 看 电影
    run | chạy bộ | 跑步
    work | làm việc | 工作
    write letters | viết thư | 写 信
    clean the room | dọn phòng | 打扫 房间
    wash clothes | giặt quần áo | 洗 衣服
    do homework | làm bài tập | 做 作业
    grow flowers | trồng hoa | 种 花
    study English | học tiếng Anh | 学习 英语
    study Chinese | học tiếng Trung | 学习 中文
    study Vietnamese | học tiếng Việt | 学习 越南语""")
for _action in ACTIONS:
    _action["ing"] = ing(_action["en"])
ROUTINES = table("""
    get up | thức dậy | 起床
    have breakfast | ăn sáng | 吃 早饭
    have lunch | ăn trưa | 吃 午饭
    have dinner | ăn tối | 吃 晚饭
    go to work | đi làm | 上班
    go home | về nhà | 回家
    go to bed | đi ngủ | 睡觉""")
HABITS = table("""
    every day | mỗi ngày | 每天
    every morning | mỗi buổi sáng | 每天 早上
    every evening | mỗi buổi tối | 每天 晚上
    every weekend | mỗi cuối tuần | 每个 周末""")
FUTURE = table("""
    tomorrow | ngày mai | 明天
    tonight | tối nay | 今天 晚上
    next week | tuần sau | 下周
    next month | tháng sau | 下个月
    next year | năm sau | 明年
    this weekend | cuối tuần này | 这个 周末""")
PAST = table("""
    yesterday | hôm qua | 昨天
    this morning | sáng nay | 今天 早上
    last night | tối qua | 昨天 晚上
    last week | tuần trước | 上周
    last month | tháng trước | 上个月""")
PERIODS = table("""
    today | hôm nay | 今天
    this week | tuần này | 这周
    this month | tháng này | 这个 月""")
WEEKDAYS = table("""
    Monday | thứ hai | 星期一
    Tuesday | thứ ba | 星期二
    Wednesday | thứ tư | 星期三
    Thursday | thứ năm | 星期四
    Friday | thứ sáu | 星期五
    Saturday | thứ bảy | 星期六
    Sunday | chủ nhật | 星期日""")
MONTHS = [
    {"en": en, "vi": str(number), "zh": str(number)}
    for number, en in enumerate(
        "January February March April May June July August September October November December".split(), 1
    )
]
WEATHER = table("""
    hot | nóng | 热
    cold | lạnh | 冷
    cool | mát | 凉快""")
EVENTS = table("""
    rain | mưa | 下雨
    snow | tuyết | 下雪
    strong wind | gió to | 刮 大风""")
REASONS = table("""
    it is raining | trời mưa | 下雨
    it is too cold | trời lạnh quá | 天气 太 冷
    it is too hot | trời nóng quá | 天气 太 热""")
VEHICLES = table("""
    by bus | bằng xe buýt | 坐 公交车
    by train | bằng tàu hỏa | 坐 火车
    by taxi | bằng taxi | 坐 出租车
    by bicycle | bằng xe đạp | 骑 自行车
    by motorbike | bằng xe máy | 骑 摩托车
    by car | bằng ô tô | 开车""")
DEPARTURES = table("""
    train | tàu hỏa | 火车
    bus | xe buýt | 公交车
    plane | máy bay | 飞机""")
OPINIONS = table("""
    difficult | khó | 难
    easy | dễ | 容易
    interesting | thú vị | 有意思
    important | quan trọng | 重要""")
HERE = table("here | ở đây | 这里\nthere | ở đó | 那里")


def digits(low: int, high: int, step: int = 1) -> list[Filler]:
    return [dict.fromkeys(LANGUAGES, str(n)) for n in range(low, high + 1, step)]


SINGULAR = [p for p in PRONOUNS if p["en"] in ("I", "you", "he", "she")]
CLASSES: dict[str, list[Filler]] = {
    "named": [p for p in PRONOUNS if p["en"] in ("he", "she")] + FAMILY,
    "asked": [p for p in PRONOUNS if p["en"] not in ("I", "we")] + FAMILY,
    "several": [p for p in PRONOUNS if p["en"] in ("we", "they")],
    "single": SINGULAR + FAMILY,
    "pronoun": PRONOUNS,
    "family": FAMILY,
    "job": JOBS,
    "relation": RELATIONS,
    "city": CITIES,
    "country": COUNTRIES,
    "tongue": TONGUES,
    "place": PLACES,
    "shop": SHOPS,
    "food": FOODS,
    "drink": DRINKS,
    "thing": THINGS,
    "small": SMALL_THINGS,
    "owned": THINGS + ANIMALS,
    "relative": RELATIVES,
    "number": NUMBERS,
    "some": NUMBERS[1:],
    "pointer": POINTERS,
    "quality": QUALITIES,
    "mood": MOODS,
    "skill": SKILLS,
    "action": ACTIONS,
    "routine": ROUTINES,
    "habit": HABITS,
    "future": FUTURE,
    "soon": [t for t in FUTURE if t["en"] in ("tomorrow", "tonight", "this weekend")],
    "past": PAST,
    "period": PERIODS,
    "weekday": WEEKDAYS,
    "month": MONTHS,
    "weather": WEATHER,
    "event": EVENTS,
    "reason": REASONS,
    "vehicle": VEHICLES,
    "departure": DEPARTURES,
    "opinion": OPINIONS,
    "here": HERE,
    "hour": digits(1, 12),
    "minute": digits(10, 55, 5),
    "date": digits(1, 28),
    "age": digits(18, 79),
}

# --- templates ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """One meaning in three languages; `slots` says which class fills each slot ("who", "name": see draw)."""

    key: str
    en: str
    vi: str
    zh: str
    slots: dict[str, str]
    weight: float = 1.0


def template(key: str, en: str, vi: str, zh: str, *, weight: float = 1.0, **slots: str) -> Template:
    return Template(key, en, vi, zh, slots, weight)


TEMPLATES = [
    template("my name", "My name is {N}.", "Tôi tên là {N}.", "我的 名字 是 {N} 。", N="name", weight=2),
    template(
        "name", "{S.gen} name is {N}.", "{S} tên là {N}.", "{S} 的 名字 是 {N} 。", S="named", N="name",
    ),
    template("name job", "{N} is {J.a}.", "{N} là {J}.", "{N} 是 一名 {J} 。", N="name", J="job"),
    template("job", "{S} {S.be} {J.a}.", "{S} là {J}.", "{S} 是 一名 {J} 。", S="single", J="job"),
    template(
        "jobs", "{S} {S.be} {J.many}.", "{S} là {J}.", "{S} 是 {J} 。", S="several", J="job", weight=0.6,
    ),
    template(
        "not job", "{S} {S.be} not {J.a}.", "{S} không phải là {J}.", "{S} 不 是 {J} 。", S="single",
        J="job",
    ),
    template(
        "become", "{S} {S~want} to become {J.a}.", "{S} muốn trở thành {J}.", "{S} 想 成为 一名 {J} 。",
        S="single", J="job",
    ),
    template(
        "country", "{S} {S~come} from {C}.", "{S} đến từ {C}.", "{S} 来自 {C} 。", S="who", C="country",
    ),
    template("live", "{S} {S~live} in {C}.", "{S} sống ở {C}.", "{S} 住 在 {C} 。", S="who", C="city"),
    template(
        "work at", "{S} {S~work} at {P}.", "{S} làm việc ở {P}.", "{S} 在 {P} 工作 。", S="who", P="place",
    ),
    template(
        "go habit", "{S} {S~go} to {P} {T}.", "{S} đến {P} {T}.", "{S} {T} 去 {P} 。", S="who", P="place",
        T="habit",
    ),
    template(
        "go future", "{S} will go to {C} {T}.", "{T} {S} sẽ đi {C}.", "{S} {T} 要 去 {C} 。", S="who",
        C="city", T="future",
    ),
    template(
        "go past", "{S} went to {P} {T}.", "{T} {S} đã đến {P}.", "{S} {T} 去了 {P} 。", S="who", P="place",
        T="past",
    ),
    template(
        "visit", "{S} {S~want} to travel to {C}.", "{S} muốn đi du lịch {C}.", "{S} 想 去 {C} 旅游 。",
        S="who", C="country",
    ),
    template(
        "travel by", "{S} {S~go} to {P} {V}.", "{S} đến {P} {V}.", "{S} {V} 去 {P} 。", S="who", P="place",
        V="vehicle",
    ),
    template(
        "been", "{S} {S~have} been to {C}.", "{S} đã từng đến {C}.", "{S} 去过 {C} 。", S="who", C="city",
    ),
    template(
        "never been", "{S} {S~have} never been to {C}.", "{S} chưa từng đến {C}.", "{S} 没 去过 {C} 。",
        S="who", C="city",
    ),
    template("miss", "{S} {S~miss} {C}.", "{S} nhớ {C}.", "{S} 想念 {C} 。", S="who", C="city", weight=0.6),
    template("like", "{S} {S~like} {V.ing}.", "{S} thích {V}.", "{S} 喜欢 {V} 。", S="who", V="action"),
    template(
        "dislike", "{S} {S~do} not like {V.ing}.", "{S} không thích {V}.", "{S} 不 喜欢 {V} 。", S="who",
        V="action",
    ),
    template("now", "{S} {S.be} {V.ing}.", "{S} đang {V}.", "{S} 正在 {V} 。", S="who", V="action"),
    template("can", "{S} can {V}.", "{S} biết {V}.", "{S} 会 {V} 。", S="who", V="skill"),
    template("cannot", "{S} cannot {V}.", "{S} không biết {V}.", "{S} 不 会 {V} 。", S="who", V="skill"),
    template("habit", "{S} {V~} {T}.", "{S} {V} {T}.", "{S} {T} {V} 。", S="who", V="action", T="habit"),
    template(
        "future", "{S} will {V} {T}.", "{T} {S} sẽ {V}.", "{S} {T} 会 {V} 。", S="who", V="action",
        T="future",
    ),
    template("want", "{S} {S~want} to {V}.", "{S} muốn {V}.", "{S} 想 {V} 。", S="who", V="action"),
    template(
        "like?", "{S~Do} {S} like {V.ing}?", "{S} có thích {V} không?", "{S} 喜欢 {V} 吗 ？", S="asked",
        V="action",
    ),
    template(
        "together", "{S} often {V~} with {F}.", "{S} thường {V} với {F}.", "{S} 经常 和 {F} 一起 {V} 。",
        S="pronoun", V="action", F="family",
    ),
    template(
        "because", "Because {R}, {S} cannot {V}.", "Vì {R} nên {S} không thể {V}.",
        "因为 {R} ， {S} 不能 {V} 。", R="reason", S="who", V="action",
    ),
    template(
        "like food", "{S} {S~like} to eat {F}.", "{S} thích ăn {F}.", "{S} 喜欢 吃 {F} 。", S="who",
        F="food",
    ),
    template(
        "like drink", "{S} {S~like} to drink {D}.", "{S} thích uống {D}.", "{S} 喜欢 喝 {D} 。", S="who",
        D="drink", weight=0.6,
    ),
    template(
        "want food", "{S} {S~want} to eat {F}.", "{S} muốn ăn {F}.", "{S} 想 吃 {F} 。", S="who", F="food",
    ),
    template(
        "want drink", "{S} {S~want} to drink {D}.", "{S} muốn uống {D}.", "{S} 想 喝 {D} 。", S="who",
        D="drink", weight=0.6,
    ),
    template(
        "ate", "{S} ate {F} {T}.", "{T} {S} đã ăn {F}.", "{S} {T} 吃了 {F} 。", S="who", F="food", T="past",
    ),
    template(
        "food but", "{S} {S~like} {A} but {S~do} not like {B}.",
        "{S} thích ăn {A} nhưng không thích ăn {B}.", "{S} 喜欢 吃 {A} ， 但是 不 喜欢 吃 {B} 。", S="who",
        A="food", B="food",
    ),
    template(
        "food or", "Do you want to eat {A} or {B}?", "Bạn muốn ăn {A} hay {B}?", "你 想 吃 {A} 还是 {B} ？",
        A="food", B="food", weight=0.6,
    ),
    template(
        "cup", "Please give me {N} cups of {D}.", "Làm ơn cho tôi {N} cốc {D}.", "请 给 我 {N} 杯 {D} 。",
        N="some", D="drink", weight=0.7,
    ),
    template(
        "food here", "{F} {H} {F.be} very good.", "{F} {H} rất ngon.", "{H} 的 {F} 很 好吃 。", F="food",
        H="here", weight=0.9,
    ),
    template(
        "bought food", "{S} bought {F} at {P}.", "{S} đã mua {F} ở {P}.", "{S} 在 {P} 买了 {F} 。", S="who",
        F="food", P="shop",
    ),
    template(
        "have", "{S} {S~have} {N} {O.count}.", "{S} có {N} {O.cl} {O}.", "{S} 有 {N} {O.measure} {O} 。",
        S="who", N="number", O="owned",
    ),
    template(
        "bought", "{S} bought {N} {O.count} {T}.", "{T} {S} đã mua {N} {O.cl} {O}.",
        "{S} {T} 买了 {N} {O.measure} {O} 。", S="who", N="number", O="owned", T="past",
    ),
    template(
        "want thing", "{S} {S~want} to buy {N} {O.count}.", "{S} muốn mua {N} {O.cl} {O}.",
        "{S} 想 买 {N} {O.measure} {O} 。", S="who", N="number", O="thing",
    ),
    template(
        "on table", "There {N.be} {N} {O.count} on the table.", "Trên bàn có {N} {O.cl} {O}.",
        "桌子 上 有 {N} {O.measure} {O} 。", N="number", O="small",
    ),
    template(
        "thing is", "{D} {O} is very {Q}.", "{O.cl} {O} {D} rất {Q}.", "{D} {O.measure} {O} 很 {Q} 。",
        D="pointer", O="thing", Q="quality",
    ),
    template(
        "thing is not", "{D} {O} is not {Q}.", "{O.cl} {O} {D} không {Q}.", "{D} {O.measure} {O} 不 {Q} 。",
        D="pointer", O="thing", Q="quality",
    ),
    template(
        "price", "How much is {D} {O}?", "{O.cl} {O} {D} giá bao nhiêu?", "{D} {O.measure} {O} 多少 钱 ？",
        D="pointer", O="owned", weight=0.9,
    ),
    template(
        "family size", "{S.gen} family has {N} people.", "Gia đình {S} có {N} người.",
        "{S} 家 有 {N} 口 人 。", S="single", N="some",
    ),
    template(
        "relatives", "{S} {S~have} {N} {O.count}.", "{S} có {N} {O}.", "{S} 有 {N} 个 {O} 。", S="who",
        N="number", O="relative",
    ),
    template("mood", "{S} {S.be} very {A}.", "{S} rất {A}.", "{S} 很 {A} 。", S="who", A="mood"),
    template("not mood", "{S} {S.be} not {A}.", "{S} không {A}.", "{S} 不 {A} 。", S="who", A="mood"),
    template("mood?", "{S.Be} {S} {A}?", "{S} có {A} không?", "{S} {A} 吗 ？", S="asked", A="mood"),
    template(
        "age", "{S} {S.be} {N} years old this year.", "Năm nay {S} {N} tuổi.", "{S} 今年 {N} 岁 。", S="who",
        N="age",
    ),
    template(
        "time", "It is {H}:{M} now.", "Bây giờ là {H} giờ {M} phút.", "现在 是 {H} 点 {M} 分 。", H="hour",
        M="minute", weight=0.9,
    ),
    template(
        "date", "Today is {W}, {M} {D}.", "Hôm nay là {W}, ngày {D} tháng {M}.",
        "今天 是 {M} 月 {D} 日 ， {W} 。", W="weekday", M="month", D="date",
    ),
    template(
        "weather", "It is very {W} in {C} {T}.", "{T} ở {C} rất {W}.", "{T} {C} 很 {W} 。", C="city",
        W="weather", T="period",
    ),
    template(
        "event", "There will be {E} in {C} {T}.", "{T} ở {C} sẽ có {E}.", "{T} {C} 会 {E} 。", E="event",
        C="city", T="future",
    ),
    template(
        "if event", "If there is {E} {T}, {S} will stay at home.", "Nếu {T} có {E}, {S} sẽ ở nhà.",
        "如果 {T} {E} ， {S} 会 待在 家里 。", E="event", T="soon", S="who",
    ),
    template(
        "next to", "{A} is next to {B}.", "{A} ở bên cạnh {B}.", "{A} 在 {B} 旁边 。", A="place", B="place",
        weight=0.7,
    ),
    template(
        "place in city", "Where is {P} in {C}?", "{P} ở {C} nằm ở đâu?", "{C} 的 {P} 在 哪里 ？", P="place",
        C="city", weight=0.9,
    ),
    template("know", "{S} {S~know} {N}.", "{S} quen {N}.", "{S} 认识 {N} 。", S="pronoun", N="name"),
    template(
        "know?", "{S~Do} {S} know {N}?", "{S} có quen {N} không?", "{S} 认识 {N} 吗 ？", S="asked", N="name",
    ),
    template(
        "relation", "{N} is {S.gen} {R}.", "{N} là {R} của {S}.", "{N} 是 {S} 的 {R} 。", N="name",
        S="pronoun", R="relation", weight=1.5,
    ),
    template(
        "good friends", "{A} and {B} are good friends.", "{A} và {B} là bạn tốt.",
        "{A} 和 {B} 是 好 朋友 。", A="name", B="name",
    ),
    template(
        "speak", "{S} can speak {L}.", "{S} biết nói {L}.", "{S} 会 说 {L} 。", S="who", L="tongue",
        weight=0.7,
    ),
    template(
        "learning", "{S} started learning {L} {T}.", "{T} {S} đã bắt đầu học {L}.", "{S} {T} 开始 学 {L} 。",
        S="who", L="tongue", T="past",
    ),
    template(
        "opinion", "{S} {S~think} {L} is very {O}.", "{S} nghĩ {L} rất {O}.", "{S} 觉得 {L} 很 {O} 。",
        S="pronoun", L="tongue", O="opinion",
    ),
    template(
        "routine", "{S} {V~} at {H} o'clock every day.", "Mỗi ngày {S} {V} lúc {H} giờ.",
        "{S} 每天 {H} 点 {V} 。", S="who", V="routine", H="hour",
    ),
    template(
        "departure", "The {D} to {C} leaves at {H} o'clock.", "Chuyến {D} đi {C} khởi hành lúc {H} giờ.",
        "去 {C} 的 {D} {H} 点 出发 。", D="departure", C="city", H="hour",
    ),
    template(
        "meet", "Nice to meet you, {N}.", "Rất vui được gặp bạn, {N}.", "很 高兴 认识 你 ， {N} 。",
        N="name", weight=0.7,
    ),
    template(
        "goodbye", "Goodbye {N}, see you {T}.", "Tạm biệt {N}, hẹn gặp lại {T}.", "再见 ， {N} ， {T} 见 。",
        N="name", T="future", weight=0.7,
    ),
    template(
        "hello", "Hello {N}, how are you?", "Xin chào {N}, bạn có khỏe không?", "你好 ， {N} ， 你 好 吗 ？",
        N="name", weight=0.7,
    ),
    template(
        "birthday", "Happy birthday, {N}!", "Chúc mừng sinh nhật, {N}!", "生日 快乐 ， {N} ！", N="name",
        weight=0.6,
    ),
]  # fmt: skip
BY_KEY = {t.key: t for t in TEMPLATES}

# --- meanings -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meaning:
    """A template with one filler per slot; `key` names it in all languages."""

    template: Template
    fillers: tuple[tuple[str, str], ...]  # (slot, English form)
    values: tuple[Filler, ...]

    @property
    def key(self) -> str:
        return self.template.key + "|" + "|".join(f"{slot}={value}" for slot, value in self.fillers)

    @property
    def heldout(self) -> bool:
        """True for the fixed share of meanings that no training text may contain, in any language."""
        if self.key == DEMO_KEY:
            return True
        return int(hashlib.sha256(self.key.encode("utf-8")).hexdigest()[:8], 16) % HELDOUT_ONE_IN == 0

    def words(self, language: str) -> list[str]:
        """The sentence cut at the blanks of the template: for Chinese, its words."""
        values = dict(zip((slot for slot, _ in self.fillers), self.values, strict=True))
        pattern = getattr(self.template, language)
        text = SLOT.sub(lambda m: form(values, *m.groups(), language=language), pattern)
        return (text[0].upper() + text[1:]).split(" ")

    def sentence(self, language: str) -> str:
        return ("" if language == "zh" else " ").join(self.words(language))


SLOT = re.compile(r"\{(\w+)(?:([.~])(\w*))?\}")
DEMO_KEY = f"my name|N={without_marks(DEMO_NAME)}"


def form(values: dict[str, Filler], slot: str, mark: str | None, wanted: str | None, *, language: str) -> str:
    """What stands in a sentence for {slot}, {slot.wanted} or {slot~wanted}."""
    filler = values[slot]
    if mark is None:
        return filler[language]
    if mark == "~":  # an English verb that agrees with the subject
        verb = (wanted or filler["en"]).lower()
        verb = third_person(verb) if values["S"].get("third") == "yes" else verb
        return verb.capitalize() if wanted and wanted[0].isupper() else verb
    if wanted == "count":
        return filler["en"] if values["N"]["en"] == "one" else filler["many"]
    if wanted == "be" and "be" not in filler:
        return "is" if filler["en"] == "one" else "are"
    if wanted and wanted[0].isupper():
        return filler[wanted.lower()].capitalize()
    return filler[wanted or language]


def draw_name(rng: random.Random) -> Filler:
    """A surname with one given syllable (one name in five) or two."""
    given = rng.sample(syllables(GIVEN), 1 if rng.random() < 0.2 else 2)
    return name(" ".join(syllable for syllable, _ in [rng.choice(syllables(SURNAMES)), *given]))


def draw(kind: str, rng: random.Random) -> Filler:
    """One filler of a class; "who" is a pronoun, a relative or a person with a name."""
    if kind == "who":
        kind = rng.choices(["pronoun", "family", "name"], [0.45, 0.33, 0.22])[0]
    return draw_name(rng) if kind == "name" else rng.choice(CLASSES[kind])


def meaning(chosen: Template, fillers: dict[str, Filler]) -> Meaning:
    return Meaning(chosen, tuple((slot, f["en"]) for slot, f in fillers.items()), tuple(fillers.values()))


def any_meaning(rng: random.Random, *, among: Template | None = None) -> Meaning:
    """A meaning of either part; of the template `among` if that is given. No filler stands in it twice."""
    chosen = among or rng.choices(TEMPLATES, [t.weight for t in TEMPLATES])[0]
    while True:
        found = meaning(chosen, {slot: draw(kind, rng) for slot, kind in chosen.slots.items()})
        if len({value for _, value in found.fillers}) == len(found.fillers):
            return found


def training_meaning(rng: random.Random) -> Meaning:
    """A meaning that is not held out."""
    while (found := any_meaning(rng)).heldout:
        pass
    return found


def demo_meaning() -> Meaning:
    return meaning(BY_KEY["my name"], {"N": name(DEMO_NAME)})


STARTS_A_NAME = {spelling for n, _ in syllables(SURNAMES) for spelling in (n, without_marks(n))}


def as_typed(sentence: str, *, lower: bool, bare: bool) -> str:
    """A sentence as people type it: lower-case start (never for a name), no final full stop.

    >>> as_typed("Tôi tên là Lan.", lower=True, bare=True)
    'tôi tên là Lan'
    """
    if lower and re.split(r"[ ']", sentence)[0] not in STARTS_A_NAME:
        sentence = sentence[0].lower() + sentence[1:]
    return sentence.rstrip(".。") if bare else sentence


def translation(source: Meaning, *, direction: str, lower: bool, bare: bool) -> tuple[str, str]:
    """(user turn, answer).

    English and Vietnamese answers are full sentences; a Chinese answer has a full stop if the request has.
    """
    start, goal = direction.split(">")
    request = as_typed(source.sentence(start), lower=lower and start != "zh", bare=bare)
    answer = as_typed(source.sentence(goal), lower=False, bare=bare and goal == "zh")
    return f"Translate following sentence into {LANGUAGE_NAMES[goal]}: {request}", answer


# --- small talk: several ways to say it, one answer ---------------------------------------------------------

SMALL_TALK = [
    (["hello", "hi", "hey there", "good morning"], "Hello! 😊 How can I help you?"),
    (["xin chào", "chào bạn", "chào", "chào buổi sáng"], "Xin chào! 😊 Tôi có thể giúp gì cho bạn?"),
    (["你好", "您好", "早上好", "嗨"], "你好！😊 我能帮你做什么？"),
    (
        ["who are you?", "what are you?"],
        "I am a small demo model. I translate English, Vietnamese and Chinese. 🤖",
    ),
    (
        ["bạn là ai?", "bạn là gì?"],
        "Tôi là một mô hình minh họa nhỏ. Tôi dịch tiếng Anh, tiếng Việt và tiếng Trung. 🤖",
    ),
    (["你是谁？", "你是什么？"], "我是一个小小的演示模型。我会翻译英语、越南语和中文。🤖"),
    (["what is your name?", "what's your name?"], "My name is Demo. 🙂"),
    (["bạn tên là gì?", "tên bạn là gì?"], "Tôi tên là Demo. 🙂"),
    (["你叫什么名字？", "你的名字是什么？"], "我的名字是Demo。🙂"),
    (["how are you?", "how are you today?"], "I am fine, thank you. And you? 😄"),
    (["bạn có khỏe không?", "hôm nay bạn thế nào?"], "Tôi khỏe, cảm ơn bạn. Còn bạn? 😄"),
    (["你好吗？", "你今天怎么样？"], "我很好，谢谢。你呢？😄"),
    (["thank you", "thanks", "thanks a lot"], "You are welcome! 🙏"),
    (["cảm ơn", "cảm ơn bạn", "cảm ơn nhiều"], "Không có gì! 🙏"),
    (["谢谢", "谢谢你", "非常感谢"], "不客气！🙏"),
    (["goodbye", "bye", "see you later"], "Goodbye! See you again. 👋"),
    (["tạm biệt", "hẹn gặp lại", "chào tạm biệt"], "Tạm biệt! Hẹn gặp lại bạn. 👋"),
    (["再见", "拜拜", "下次见"], "再见！下次见。👋"),
    (
        ["what can you do?", "can you help me?"],
        "Write: Translate following sentence into Vietnamese: I like tea. 🍵",
    ),
    (
        ["bạn làm được gì?", "bạn có thể giúp tôi không?"],
        "Hãy viết: Translate following sentence into English: tôi thích trà. 🍵",
    ),
    (["你会做什么？", "你能帮我吗？"], "请写：Translate following sentence into English: 我喜欢茶。🍵"),
    (["I love you", "you are great"], "Thank you, that is very kind! ❤️"),
    (["tôi yêu bạn", "bạn giỏi quá"], "Cảm ơn, bạn thật tốt bụng! ❤️"),
    (["我爱你", "你真棒"], "谢谢，你真好！❤️"),
    (["where is Hanoi?", "what is Hanoi?"], "Hanoi is the capital of Vietnam. ⭐"),
    (["Hà Nội ở đâu?", "Hà Nội là gì?"], "Hà Nội là thủ đô của Việt Nam. ⭐"),
    (["河内在哪里？", "河内是什么？"], "河内是越南的首都。⭐"),
]  # fmt: skip
SYSTEM_TURNS = [
    "You are a helpful assistant.",
    "You are a careful translator.",
    "Bạn là một trợ lý hữu ích.",
    "你是一个有用的助手。",
]


def small_talk(rng: random.Random) -> tuple[str, str]:
    """(user turn, answer): a greeting or question of SMALL_TALK, or a sum of two digits."""
    if rng.random() < 0.2:
        a, b = rng.randrange(10), rng.randrange(10)
        return f"{a} + {b} = ?", f"{a} + {b} = {a + b}"
    asked, answer = rng.choice(SMALL_TALK)
    question = rng.choice(asked)
    if rng.random() < 0.4:
        question = question[0].upper() + question[1:]
    if rng.random() < 0.4:
        question = question.rstrip("?？") if question[-1] in "?？" else question + rng.choice(["!", "."])
    return question, answer


# --- words that stand in the tokenizer only, as in a real one: no sentence above uses them ------------------

MORE_ENGLISH = """
about after again against air all almost alone along already also although always among animal answer
another any area around art ask away back bad because become been before began begin behind being believe
below best better between body both bring brother brought build but buy call came capital care carry case
center certain change children choose city class clear close color common company complete computer consider
continue could country course cover cut dark data daughter death decide deep did different does door down
during each early earth easy education end enough even ever every example experience eye face fact fall far
fast feel few field fight figure fill final find fire first follow food foot for force form four free from
full game garden gave general girl give gold government great green ground group grow guess hair half hand
happen hard has head hear heart help here high history hold hope hour human hundred idea important industry
information inside interest into island just keep key kind king knowledge land language large last late
laugh law lead learn leave left less letter life light line list little local long look lost love machine
made main make many mark market matter mean measure member mind minute model moment money month more morning
most mother mountain move much music must nature near need network never next nothing notice number object
ocean off office often oil once only open order other our out over own page paper part party pass past pay
people perhaps period picture piece plan plant point possible power present price problem process produce
program public question quick quite rather reach real reason record red remember research rest result right
river road rock rule said same save science sea second see seem sense sentence service several shall shape
should show side simple since small society some song soon sound south space special stand star start state
step still stop story street strong study such summer sun support sure system table take talk tell term test
than that their them then there these thing think thought thousand through today together token too took top
toward town tree true try turn type under until use usually value various very view village voice walk wall
war warm was watch way were west what wheel when which while white whole why wide will wind window winter
with within without woman wonder wood word world would write year yellow yes yet young your"""
MORE_VIETNAMESE = """
ai áo ấm ba bài ban bán bao báo bay bảy bắt bằng bây bé bên bệnh biển biết bình bộ bởi bông buổi bước cả các
cách cái cảm càng cao cầm cần cây chạy chắc chân chất chết chia chiến chiều chính cho chọn chống chủ chúc
chung chuyện chuyển chưa chương có con còn công cơ của cùng cũng cuộc cuối cử cửa dài dàng dạy dân dẫn dậy
dễ dịch diện do dưới dùng dự đã đang đánh đâu đầu đây đầy đen đèn đẹp đề đến đêm đi điểm điện điều định đó
đỏ đoàn đọc đội đời đôi đổi đông đồng động đủ đúng đưa đứng đường được em gái gần gì gia giá giải giáo giữ
giữa giúp giới giờ gọi hai hàng hành hay hát hãy hết hiểu hiện hình họ học hỏi hoa hoặc hoàn hội hơn hợp
huyện hướng ít kế kết khác khách khai khi khó khoa khoảng không khu kia kiểm kiến kinh kỳ là lại làm lên lần
lâu lấy lễ liên lịch lĩnh lòng lớn lợi luôn luật lúc lượng lửa mà màu mang máy mặt mẹ miền miệng mình mọi
môn món mỗi một muốn mùa mức mưa mười năm nào này nay năng nên nếu ngày ngành ngoài ngôi ngôn ngủ ngữ người
nghe nghề nghiệp nghĩ nguồn nhà nhau nhân nhất nhiên nhiều nhìn nhóm nhỏ nhớ như những nhưng nói nơi nội
nông núi nước nữ ông ở phải phát phần phòng phố phương qua quan quân quả quá quen quốc quyền ra rất rõ rồi
rừng sản sao sau sáng sách sẽ sinh số sông sống sự sức sử sáu ta tác tài tại tạo tay tăng tâm tất tập tên
tháng thành thay thấy thế thể theo thêm thì thị thích thiên thiếu thông thống thời thuật thuộc thủ thư thực
thường tiền tiếng tiếp tìm tin tỉnh tính tình tổ tôi tới toàn tốt trả trách trái trăm trắng trận trên tri
triển trong trông trời trở trước trường truyền trung tuổi từ từng tư tự tương ủy và vàng vào văn vẫn vấn vật
vậy về vì việc viên viết vị vòng vô vốn vợ vua vui vùng vừa xa xã xanh xây xe xem xin xong xuống xuất ý yêu
yếu"""
EMOJI = "😊 🤖 🙂 😄 🙏 👋 🍵 ❤️ ⭐ 🎉 👍 😂 🌧️ ☀️ 🍜 🔥 💡 ✅ 🐱 🐶 🌸 🎂 🇻🇳".split()
